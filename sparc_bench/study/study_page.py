"""The page of a study: its ranking, what is missing, all tasks in tables of few columns, held-out figures.

Tables are of one data set or family of tasks each, with the differences to the study's baseline below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sparc_bench.cards.changes import described
from sparc_bench.foreign_text import markdown
from sparc_bench.metrics.unit import in_unit
from sparc_bench.report import overview
from sparc_bench.study.run_sets import RunSet, criterion_of, sets_of
from sparc_bench.study.study_ranking import (
    NOT_CLEAR_OF_ZERO,
    absent,
    cells,
    clear_differences,
    columns,
    difference,
    lists,
    ranked_groups,
    remarks,
)
from sparc_bench.study.study_result import StudyResult
from sparc_bench.study.study_rows import Gain
from sparc_bench.study.trial_choice import val_score

MARKDOWN, PICTURE = "table.md", "table.png"

WIDEST = 6
"""Most columns of tasks in one table."""


def markdown_text(result: StudyResult) -> str:
    """The content of `table.md`, or of the page of another set of runs."""
    title = markdown(result.study.title + result.of.after)
    lines = [f"# {title}", "", "Written by `sparc-bench study`; not edited by hand.", "", _about(result), ""]
    lines += [*_others(result), *_ranking(result)]
    for heading, sentences in lists(result):
        lines += [f"## {heading}", "", *(f"- {markdown(sentence)}" for sentence in sentences), ""]
    lines += [*_variants(result), *_on_val(result), *_held_out(result), *_all_tasks(result)]
    return "\n".join(lines)


def _about(result: StudyResult) -> str:
    study = result.study
    names = markdown(" and ".join(criterion_of(study, result.of)))
    first = (
        f"Settings were chosen among {study.trials} trials of {study.trial_steps} steps for each recipe by the mean of "
        f"{names} on val. "
    )
    if result.of is RunSet.EQUAL_CPU:
        first += (
            f"Each recipe was trained for as many steps as fit into {study.cpu_seconds:g} CPU seconds by the time of "
            "its chosen trial (loading, forward, backward and optimiser, on one thread), with its schedule scaled to "
            "that length; the CPU seconds in the table are those that were then measured, means over seeds. "
        )
    return (
        first + "Images, captions and negatives are those of a step; "
        "methods that see other kinds of captions are ranked apart. Differences are of the same images; one is "
        "clear of zero where its p value, corrected for the number of rows (Holm), is under .05. Intervals are of one "
        "row alone."
    )


def _others(result: StudyResult) -> list[str]:
    """Links to the pages of the other sets of runs; none where there is one set."""
    titles = {
        RunSet.FIRST: "the first choice",
        RunSet.SECOND: f"settings chosen by the mean of {' and '.join(result.study.second_criterion)}",
        RunSet.EQUAL_CPU: "equal CPU time",
    }
    links = [f"[{markdown(titles[of])}]({of.file(MARKDOWN)})" for of in sets_of(result.study) if of is not result.of]
    return [f"The same study: {', '.join(links)}.", ""] if links else []


def _ranking(result: StudyResult) -> list[str]:
    names = columns(result)
    lines = [f"| {' | '.join(map(markdown, names))} |", f"|{'---|' * len(names)}"]
    for group in ranked_groups(result):
        lines.append(f"| | **{markdown(group.kind)}** |{' |' * (len(names) - 2)}")
        lines += [f"| {' | '.join(cells(result, group, entry))} |" for entry in group.entries]
    found = remarks(result)
    return [*lines, "", *(f"- {sentence}" for sentence in found), *[""] * bool(found)]


def _variants(result: StudyResult) -> list[str]:
    made = result.study.variants
    if not made:
        return []
    found = [f"- {name}: {variant.base} with {described(variant.set)}" for name, variant in made.items()]
    return ["## Variants", "", *map(markdown, found), ""]


def _on_val(result: StudyResult) -> list[str]:
    """What decides, of the final runs: means over seeds; nothing where one criterion of retrieval decides."""
    study = result.study
    if not (study.second_criterion or study.validate):
        return []
    names = list(dict.fromkeys((*study.criterion, *study.second_criterion)))
    lines = []
    for entry in result.entries:
        if entry.runs:
            means = [_mean([val_score(study, run.val, name) for run in entry.runs]) for name in names]
            lines.append(f"| {markdown(entry.recipe)} | {len(entry.runs)} | {' | '.join(means)} |")
    if not lines:
        return []
    heads = " | ".join(map(markdown, names))
    sentence = "Scores on val of the final runs, percent: means over seeds; each seed's stand in the table of runs."
    return [
        "## On val",
        "",
        sentence,
        "",
        f"| recipe | seeds | {heads} |",
        f"|---|--:|{'--:|' * len(names)}",
        *lines,
        "",
    ]


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return in_unit(sum(known) / len(known)) if len(known) == len(values) else ""


def _held_out(result: StudyResult) -> list[str]:
    """The objectives' own figures on held-out pairs, a table for each: recipes down, seeds across."""
    names = dict.fromkeys(name for entry in result.entries for run in entry.runs for name in run.held_out)
    if not names:
        return []
    lines = ["## Held-out pairs", ""]
    lines += ["Figures of each loss, in its own unit, on pairs of val; 95 % intervals of each seed over captions.", ""]
    for name in names:
        found = {
            e.recipe: {run.seed: run.held_out[name] for run in e.runs if name in run.held_out} for e in result.entries
        }
        seeds = sorted({seed for of in found.values() for seed in of})
        lines += [f"**{markdown(name.replace('_', ' '))}**", ""]
        lines += [
            f"| recipe | mean | {' | '.join(f'seed {seed}' for seed in seeds)} |",
            f"|---|--:|{'---|' * len(seeds)}",
        ]
        for recipe, of in found.items():
            if of:
                mean = sum(value for value, _, _ in of.values()) / len(of)
                shown = [_interval(of[seed]) if seed in of else "" for seed in seeds]
                lines.append(f"| {markdown(recipe)} | {mean:.3f} | {' | '.join(shown)} |")
        lines.append("")
    return lines


def _interval(gain: Gain) -> str:
    value, low, high = gain
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _all_tasks(result: StudyResult) -> list[str]:
    if not result.sections:
        return []
    lines = ["## All tasks", ""]
    groups = ranked_groups(result)
    names = [(group.kind, group.recipes) for group in groups]
    none = {entry.recipe: absent(entry) for entry in result.entries if not entry.evaluated}
    for part in tables_of(result):
        lines += [f"**{part.title}**", "", *overview.table(part, names, none), ""]
        lines += _minus_baseline(result, part)
    foot = overview.foot(result.sections)
    if result.differences:
        foot += (
            f" In the tables of differences, {NOT_CLEAR_OF_ZERO} is: not clear of zero, p being corrected for the rows "
            "of its column (Holm)."
        )
    return [*lines, foot, "", f"![Values with intervals]({result.of.file(PICTURE)})", ""]


def tables_of(result: StudyResult) -> list[overview.Group]:
    """The groups of tasks, those with many columns in several parts."""
    return [
        replace(group, sections=group.sections[start : start + WIDEST])
        for group in overview.groups(result.sections)
        for start in range(0, len(group.sections), WIDEST)
    ]


def _minus_baseline(result: StudyResult, part: overview.Group) -> list[str]:
    """The table of differences to the baseline on the tasks of one table; nothing without any."""
    if not result.differences:
        return []
    of_section = dict(zip(map(id, result.sections), result.differences, strict=True))
    found = [of_section[id(section)] for section in part.sections]
    clear = [clear_differences(of) for of in found]
    lines = []
    for group in ranked_groups(result):
        for recipe in group.recipes:
            shown = [
                difference(of.get(recipe), section.unit, clear=is_clear.get(recipe, False))
                for of, is_clear, section in zip(found, clear, part.sections, strict=True)
            ]
            if any(shown):
                lines.append(f"| {markdown(recipe)} | {' | '.join(shown)} |")
    if not lines:
        return []
    heads = " | ".join(map(markdown, part.columns()))
    base = markdown(f"minus {result.study.compared_with}")
    return [f"| {base} | {heads} |", f"|---|{'---|' * len(found)}", *lines, ""]
