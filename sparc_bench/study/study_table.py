"""The table of a study: CSV, Markdown and picture in the study's folder, and a short table on the terminal.

Methods that see different kinds of captions in a step are ranked apart. No winner is named where intervals overlap.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from sparc_bench.cards.study_card import StudyCard
from sparc_bench.files.atomic import write_atomic
from sparc_bench.foreign_text import csv_cell, markdown, visible
from sparc_bench.metrics.sign_flips import LEVEL, holm
from sparc_bench.metrics.unit import SIGNS, Unit, in_unit
from sparc_bench.report import interval_plot, overview
from sparc_bench.report.ranking import Row, ranked
from sparc_bench.study.study_result import KINDS, RecipeResult, StudyResult, collect
from sparc_bench.study.study_rows import folder_of

CSV, MARKDOWN, PICTURE = "table.csv", "table.md", "table.png"
NOT_CLEAR_OF_ZERO = "‡"


@dataclass(frozen=True)
class RankedGroup:
    """Recipes that are ranked together: best first, those without a value last.

    Attributes:
        kind: kind of captions that the methods see (of `KINDS`).
        entries: results of the recipes, in order of rank.
        rows: recipe -> row of the first task's headline, ranked within the group.
    """

    kind: str
    entries: tuple[RecipeResult, ...]
    rows: dict[str, Row]

    @property
    def recipes(self) -> list[str]:
        """Names of the recipes, in order of rank."""
        return [entry.recipe for entry in self.entries]

    def verdict(self) -> str:
        """One sentence that names the winner or the overlapping intervals; empty for fewer than two recipes."""
        if len(self.rows) < 2:
            return ""
        first, *others = self.rows.values()
        near = [other.model for other in others if first.low <= other.high]
        if near:
            return f"{self._named}: no winner, the intervals of {', '.join([first.model, *near])} overlap."
        but = "" if first.clear else ", yet not clear of its reference rows"
        return f"{self._named}: {first.model} is ahead, its interval lies above those of the others{but}."

    @property
    def _named(self) -> str:
        return self.kind[0].upper() + self.kind[1:]


def publish(study: StudyCard, results: Path, console: Console) -> None:
    """Write `table.csv`, `table.md` and `table.png` into the study's folder and print the short table.

    Raises:
        UserError: an invalid card, table or record.
    """
    result = collect(study, results)
    folder = folder_of(study.name, results)
    for name, text in texts(result).items():
        write_atomic(folder / name, text.encode())
    if result.sections:
        plot(result, folder / PICTURE)
    console.print(render(result))
    console.print(f"The table of the study is in {folder}: {MARKDOWN}, {CSV}{f', {PICTURE}' * bool(result.sections)}.")


def stale(study: StudyCard, results: Path) -> list[str]:
    """One sentence for each table file that differs from the present trials, runs and records; empty without a folder.

    Raises:
        UserError: an invalid card, table or record.
    """
    folder = folder_of(study.name, results)
    if not folder.is_dir():
        return []
    return [
        f"{folder / name} is not what the records give: run sparc-bench study {study.name}."
        for name, text in texts(collect(study, results)).items()
        if not (folder / name).is_file() or (folder / name).read_text(encoding="utf-8") != text
    ]


def texts(result: StudyResult) -> dict[str, str]:
    """File name -> content of the CSV and Markdown tables."""
    return {CSV: csv_text(result), MARKDOWN: markdown_text(result)}


def ranked_groups(result: StudyResult) -> list[RankedGroup]:
    """The groups of recipes that are ranked apart, one for each kind that occurs."""
    by_name = {row.model: row for row in result.main.rows} if result.main else {}
    found = []
    for kind in KINDS:
        entries = {entry.recipe: entry for entry in result.entries if entry.kind == kind}
        rows = {row.model: row for row in ranked([by_name[name] for name in entries if name in by_name])}
        order = [*rows, *(name for name in entries if name not in rows)]
        if order:
            found.append(RankedGroup(kind, tuple(entries[name] for name in order), rows))
    return found


_COLUMNS = ("rank", "recipe", "images", "captions", "negatives", "trials", "chosen", "seeds")


def _headline(result: StudyResult) -> list[str]:
    if result.main is None:
        return []
    (name,) = overview.Group("", (result.main,), (result.main,)).columns()
    sign = SIGNS[result.main.unit]
    return [f"{name}, {sign}" if sign else name, f"minus {result.study.names[0]}"]


def _count(number: int, wanted: int, diverged: int) -> str:
    return f"{number}" + f" of {wanted}" * (number < wanted) + f", {diverged} diverged" * bool(diverged)


def _cells(result: StudyResult, group: RankedGroup, entry: RecipeResult) -> list[str]:
    row = group.rows.get(entry.recipe)
    cells = [
        str(row.rank) if row else "",
        entry.recipe,
        *(str(number) for number in (entry.sees.images, entry.sees.captions, entry.sees.negatives)),
        _count(len(entry.trials), result.study.trials, len(entry.failed)),
        ", ".join(markdown(f"{key.rpartition('.')[2]} {value}") for key, value in (entry.chosen or {}).items()),
        _count(len(entry.evaluated), entry.wanted, len(entry.stopped)),
    ]
    if result.main is None:
        return cells
    clear = _clear_of_zero(result).get(entry.recipe, False)
    return [*cells, overview.cell(row) if row else _absent(entry), _difference(entry, result.main.unit, clear=clear)]


def _clear_of_zero(result: StudyResult) -> dict[str, bool]:
    """Recipe -> whether its difference is clear of zero: p under .05, corrected for all differences of the table."""
    entries = [entry for entry in result.entries if entry.difference]
    corrected = holm([entry.difference.p for entry in entries if entry.difference])
    return {entry.recipe: p < LEVEL for entry, p in zip(entries, corrected, strict=True)}


def _absent(entry: RecipeResult) -> str:
    return "diverged" if entry.state == "diverged" else "missing"


def _difference(entry: RecipeResult, unit: Unit, *, clear: bool) -> str:
    found = entry.difference
    if found is None:
        return ""
    mark = "" if clear else NOT_CLEAR_OF_ZERO
    value, low, high = (in_unit(each, unit, signed=True) for each in (found.value, found.low, found.high))
    return f"{value}{mark} [{low}, {high}]"


def _remarks(result: StudyResult) -> list[str]:
    found = [verdict for group in ranked_groups(result) if (verdict := group.verdict())]
    one = [e.recipe for e in result.entries if e.difference and e.difference.one_seed]
    if not all(_clear_of_zero(result).values()):
        found.append(f"{NOT_CLEAR_OF_ZERO} the difference is not clear of zero.")
    if one:
        found.append(f"Differences with one seed on a side lack the spread between its trainings: {', '.join(one)}.")
    some = [entry.recipe for entry in result.entries if entry.stopped and entry.evaluated]
    if some:
        found.append(f"Means over the seeds that did not diverge, and so better than the method is: {', '.join(some)}.")
    return found


def _lists(result: StudyResult) -> list[tuple[str, list[str]]]:
    """(Title, sentences) of the lists: diverged trials and runs, missing parts, records left out."""
    lists = [
        ("Diverged", [sentence for entry in result.entries for sentence in entry.diverged()]),
        ("Missing", [sentence for entry in result.entries for sentence in entry.missing]),
        ("Left out", list(result.left_out)),
    ]
    return [(title, sentences) for title, sentences in lists if sentences]


def markdown_text(result: StudyResult) -> str:
    """The content of `table.md`."""
    study = result.study
    columns = [*_COLUMNS, *_headline(result)]
    lines = [f"# {markdown(study.title)}", "", "Written by `sparc-bench study`; not edited by hand.", ""]
    lines += [
        f"Settings were chosen among {study.trials} trials of {study.trial_steps} steps for each recipe by the mean of "
        f"{markdown(' and '.join(study.criterion))} on val. Images, captions and negatives are those of a step; "
        "methods that see other kinds of captions are ranked apart. Differences are of the same images; one is "
        "clear of zero where its p value, corrected for the number of rows (Holm), is under .05. Intervals are of one "
        "row alone.",
        "",
    ]
    lines += [f"| {' | '.join(map(markdown, columns))} |", f"|{'---|' * len(columns)}"]
    for group in ranked_groups(result):
        lines.append(f"| | **{markdown(group.kind)}** |{' |' * (len(columns) - 2)}")
        lines += [f"| {' | '.join(_cells(result, group, entry))} |" for entry in group.entries]
    remarks = _remarks(result)
    lines += ["", *(f"- {sentence}" for sentence in remarks), *[""] * bool(remarks)]
    for title, sentences in _lists(result):
        lines += [f"## {title}", "", *(f"- {markdown(sentence)}" for sentence in sentences), ""]
    if result.sections:
        lines += ["## All tasks", ""]
        names = [(group.kind, group.recipes) for group in ranked_groups(result)]
        absent = {entry.recipe: _absent(entry) for entry in result.entries if not entry.evaluated}
        for part in overview.groups(result.sections):
            lines += [f"**{part.title}**", "", *overview.table(part, names, absent), ""]
        lines += [overview.foot(result.sections), "", f"![Values with intervals]({PICTURE})", ""]
    return "\n".join(lines)


def csv_text(result: StudyResult) -> str:
    """The content of `table.csv`: one line for each recipe; values are fractions."""
    lines: list[dict[str, object]] = []
    clear = _clear_of_zero(result)
    for group in ranked_groups(result):
        for entry in group.entries:
            row = group.rows.get(entry.recipe)
            line: dict[str, object] = {
                "ranked_among": group.kind,
                "rank": row.rank if row else None,
                "recipe": entry.recipe,
                **entry.sees.model_dump(),
                "trials": len(entry.trials),
                "trials_diverged": len(entry.failed),
                "chosen": json.dumps(entry.chosen) if entry.chosen is not None else "",
                "state": entry.state,
                "seeds": len(entry.evaluated),
                "seeds_wanted": entry.wanted,
                "seeds_diverged": len(entry.stopped),
            }
            if result.main:
                found = entry.difference
                line |= {
                    f"minus {result.study.names[0]}": found.value if found else None,
                    "difference_low": found.low if found else None,
                    "difference_high": found.high if found else None,
                    "difference_p": found.p if found else None,
                    "clear_of_zero": clear.get(entry.recipe) if found else None,
                }
            for section in result.sections:
                line |= _values(f"{section.task} {section.metric}", section.rows, entry.recipe)
            lines.append({csv_cell(key): csv_cell(value) for key, value in line.items()})
    frame = pd.DataFrame(lines)
    if lines:
        frame["rank"] = frame["rank"].astype("Int64")
    buffer = io.StringIO()
    frame.to_csv(buffer, index=False, float_format="%.6f", lineterminator="\n")
    return buffer.getvalue()


def _values(name: str, rows: Sequence[Row], recipe: str) -> dict[str, object]:
    row = next((row for row in rows if row.model == recipe), None)
    return {
        name: row.value if row else None,
        f"{name} low": row.low if row else None,
        f"{name} high": row.high if row else None,
        f"{name} clear": row.clear if row else None,
    }


def render(result: StudyResult) -> RenderableType:
    """The short table for the terminal: ranking, and lists of diverged and missing trials and runs."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in (*_COLUMNS, *_headline(result)):
        table.add_column(column, overflow="fold", justify="left" if column in ("recipe", "chosen") else "right")
    for group in ranked_groups(result):
        table.add_row("", Text(group.kind, style="bold"))
        for entry in group.entries:
            table.add_row(*map(Text, _cells(result, group, entry)))
    parts: list[RenderableType] = [Text(visible(result.study.title), style="bold"), table, *map(Text, _remarks(result))]
    for title, sentences in _lists(result):
        parts += [Text(f"{title}:"), *(Text(f"  {visible(sentence)}") for sentence in sentences)]
    return Group(*parts)


def plot(result: StudyResult, path: Path) -> None:
    """Draw the picture: one panel for each headline metric, recipes in the order of the table, under their kind."""
    found = ranked_groups(result)
    names = [name for group in found for name in (group.kind, *group.recipes)]
    pictures = [
        interval_plot.Block(
            title=part.heading,
            panels=list(zip(part.columns(), part.sections, strict=True)),
            models=names,
            notes={entry.recipe: _absent(entry) for entry in result.entries if not entry.evaluated},
            headings=frozenset(group.kind for group in found),
        )
        for part in overview.groups(result.sections)
    ]
    interval_plot.save(pictures, path)
