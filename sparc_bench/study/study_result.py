"""The result of a study: trials, runs, divergences, missing parts and scores of each recipe.

Only records of the chosen setting and of the tasks' present protocols count; others are listed as left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind, objective_options
from sparc_bench.cards.changes import described
from sparc_bench.cards.recipe import Recipe, StepCounts
from sparc_bench.cards.study_card import StudyCard
from sparc_bench.metrics.seeds import SeedsEstimate
from sparc_bench.records import record_file
from sparc_bench.records.record import recipe_hash
from sparc_bench.records.record_file import Recorded
from sparc_bench.report.ranking import Section, sections_of
from sparc_bench.study.compared_recipes import compared_recipes
from sparc_bench.study.run_sets import Final, RunSet, final, results_folder
from sparc_bench.study.study_rows import RUNS, TRIALS, RunRow, TrialRow, folder_of, read_rows
from sparc_bench.study.trial_choice import current_trials, training_hash

KINDS = ("one caption an image", "several captions an image", "captions and written negatives")
"""Kinds of methods by the captions of a step; methods of different kinds are ranked apart."""


@dataclass(frozen=True)
class RecipeResult:
    """The trials, runs and missing parts of one recipe in a study.

    Attributes:
        recipe: name of the recipe.
        sees: images, captions and written negatives of a step.
        trials: trials that match the present cards.
        chosen: setting -> value of the best trial; None while trials are missing, or where all diverged.
        wanted: number of seeds that the study asks for.
        evaluated: seeds with at least one record.
        stopped: runs that ended with a loss that was not finite.
        difference: headline of the first task minus that of the study's baseline (the first recipe where its card
            names none); None for the baseline, and where either has no record.
        missing: one sentence for each missing trial, run or record.
        steps: of the final runs; None where nothing is chosen.
        runs: rows of the finished runs.
        repeats: whether a second choice is the first one again, so that its runs are the first choice's.
    """

    recipe: str
    sees: StepCounts
    trials: tuple[TrialRow, ...]
    chosen: Mapping[str, Any] | None
    wanted: int
    evaluated: tuple[int, ...]
    stopped: tuple[RunRow, ...]
    difference: SeedsEstimate | None
    missing: tuple[str, ...]
    steps: int | None = None
    runs: tuple[RunRow, ...] = ()
    repeats: bool = False

    @property
    def cpu_seconds(self) -> float | None:
        """Mean CPU time of the steps of its runs; None where none was measured."""
        found = [run.cpu_seconds for run in self.runs if run.cpu_seconds is not None]
        return sum(found) / len(found) if found else None

    @property
    def kind(self) -> str:
        """The kind of methods that the recipe is ranked among."""
        if self.sees.negatives:
            return KINDS[2]
        return KINDS[1] if self.sees.captions > self.sees.images else KINDS[0]

    @property
    def failed(self) -> tuple[TrialRow, ...]:
        """Trials that ended with a loss that was not finite."""
        return tuple(row for row in self.trials if row.diverged_at is not None)

    @property
    def state(self) -> str:
        """The state: `done`, `part` (some seeds or tasks are missing), `diverged` or `missing`."""
        if self.evaluated:
            return "part" if self.missing else "done"
        return "missing" if self.missing else "diverged"

    def diverged(self) -> list[str]:
        """One sentence for each diverged trial and run, with its step and settings."""
        sentences = [
            f"{self.recipe}, trial {row.trial}: at step {row.diverged_at} with {described(row.values)}"
            for row in self.failed
        ]
        settings = described(self.chosen or {})
        return sentences + [
            f"{self.recipe}, seed {row.seed}: at step {row.step} with {settings}" for row in self.stopped
        ]


@dataclass(frozen=True)
class StudyResult:
    """The present result of a study.

    Attributes:
        study: the study card.
        entries: results of all recipes, in the card's order.
        sections: ranked metrics of all tasks, those of the first task first.
        main: section of the first task's headline; None without any record of it.
        left_out: one sentence for each group of records that do not belong to the study.
        of: the set of runs.
        differences: for each section, recipe -> its mean minus that of the card's `baseline`; none without one.
    """

    study: StudyCard
    entries: tuple[RecipeResult, ...]
    sections: tuple[Section, ...]
    main: Section | None
    left_out: tuple[str, ...]
    of: RunSet = RunSet.FIRST
    differences: tuple[Mapping[str, SeedsEstimate], ...] = field(default=())


def collect(study: StudyCard, results: Path, of: RunSet = RunSet.FIRST) -> StudyResult:
    """The result of one set of a study's runs, from its tables and the records of its runs.

    Raises:
        UserError: an invalid card, table or record.
    """
    folder = folder_of(study.name, results)
    trials = read_rows(folder / TRIALS, TrialRow)
    tasks = {card.name: bind(card, discovery.declared).protocol_hash() for card in map(discovery.task, study.tasks)}
    records: dict[Path, list[Recorded]] = {}
    of_study: dict[str, list[Recorded]] = {}
    left_out: list[str] = []
    parts = []
    for recipe in compared_recipes(study).values():
        chosen = final(study, recipe, trials, of)
        runs = chosen.runs if chosen else of
        place = results_folder(study, recipe.name, runs, results)
        if place not in records:
            records[place] = [each for each in record_file.read_all(place) if each.record.task in tasks]
        mine = [each for each in records[place] if each.record.model == recipe.name]
        of_study[recipe.name] = [each for each in mine if _is_of(each, study, chosen, tasks)]
        others = [each.path.parent.name for each in mine if each not in of_study[recipe.name]]
        left_out += [
            f"{others.count(name)} records of {name} are of another setting, protocol or seed than the study's."
            for name in dict.fromkeys(others)
        ]
        rows = [
            run
            for run in read_rows(folder / runs.file(RUNS), RunRow)
            if chosen and run.recipe == recipe.name and run.seed < study.runs_of(run.recipe)
            if run.recipe_hash == training_hash(chosen.recipe, run.seed)
        ]
        parts.append((recipe, chosen, rows))
    entries = [_entry(study, recipe, trials, chosen, of_study, rows, of) for recipe, chosen, rows in parts]
    sections = sections_of([each for found in of_study.values() for each in found])
    order = {name: number for number, name in enumerate(tasks)}
    ordered = sorted(sections, key=lambda section: (order[section.task], not section.main))
    main = next((section for section in ordered if section.main and order[section.task] == 0), None)
    differences = tuple(_differences(study, section, of_study) for section in ordered) if study.baseline else ()
    return StudyResult(study, tuple(entries), tuple(ordered), main, tuple(left_out), of, differences)


def _is_of(each: Recorded, study: StudyCard, chosen: Final | None, tasks: Mapping[str, str]) -> bool:
    record = each.record
    return (
        chosen is not None
        and record.recipe_hash == recipe_hash(chosen.recipe)
        and record.protocol_hash == tasks[record.task]
        and record.seed < study.runs_of(record.model)
    )


def _entry(
    study: StudyCard,
    recipe: Recipe,
    trials: Sequence[TrialRow],
    chosen: Final | None,
    of_study: Mapping[str, Sequence[Recorded]],
    runs: Sequence[RunRow],
    of: RunSet,
) -> RecipeResult:
    mine, base = of_study[recipe.name], study.compared_with
    current = current_trials(study, recipe, trials)
    stopped = tuple(run for run in runs if run.state == "diverged")
    return RecipeResult(
        recipe=recipe.name,
        sees=sees_of(recipe),
        trials=tuple(current),
        chosen=chosen.trial.values if chosen else None,
        wanted=study.runs_of(recipe.name),
        evaluated=tuple(sorted({each.record.seed for each in mine})),
        stopped=stopped,
        difference=_difference(study, mine, of_study[base]) if recipe.name != base else None,
        missing=tuple(_missing(study, recipe.name, current, mine, {run.seed for run in stopped})),
        steps=chosen.recipe.steps if chosen else None,
        runs=tuple(run for run in runs if run.state == "done"),
        repeats=chosen is not None and chosen.runs is not of,
    )


def sees_of(recipe: Recipe) -> StepCounts:
    """Images, captions and negatives of a step, as the recipe declares them, or by the options of its objective."""
    if recipe.sees is not None:
        return recipe.sees
    objective = discovery.declared("objectives", recipe.objective).Objective
    of_options = SimpleNamespace(options=objective_options(recipe))
    captions, negatives = objective.captions_per_image.fget(of_options), objective.negatives_per_image.fget(of_options)
    size = recipe.batch_size
    return StepCounts(images=size, captions=size * captions, negatives=size * negatives)


def _difference(study: StudyCard, mine: Sequence[Recorded], base: Sequence[Recorded]) -> SeedsEstimate | None:
    first = discovery.task(study.tasks[0])
    a, b = ([each for each in of if each.record.task == first.name] for of in (mine, base))
    if not a or not b or not all(first.headline in each.record.metrics for each in (*a, *b)):
        return None
    found = record_file.difference(a, b, first.headline)
    return found if found.value == found.value else None


def _differences(
    study: StudyCard, section: Section, of_study: Mapping[str, Sequence[Recorded]]
) -> dict[str, SeedsEstimate]:
    """Recipe -> its difference to the baseline in one section; without recipes that have no value in it."""
    members = {
        name: [
            each
            for each in found
            if (each.record.task, each.record.data_hash, each.record.exposure.kind)
            == (section.task, section.data_hash, section.exposure)
            if section.metric in each.record.headline_metrics
        ]
        for name, found in of_study.items()
    }
    base = members.pop(study.compared_with)
    found = {
        name: record_file.difference(mine, base, section.metric) for name, mine in members.items() if mine and base
    }
    return {name: each for name, each in found.items() if each.value == each.value}


def _missing(
    study: StudyCard, name: str, current: Sequence[TrialRow], mine: Sequence[Recorded], stopped: set[int]
) -> list[str]:
    if len(current) < study.trials:
        return [f"{name}: {study.trials - len(current)} of {study.trials} trials, and all runs"]
    if all(row.diverged_at is not None for row in current):
        return []
    tasks = [discovery.task(task).name for task in study.tasks]
    sentences = []
    for seed in range(study.runs_of(name)):
        there = {each.record.task for each in mine if each.record.seed == seed}
        lacking = [task for task in tasks if task not in there]
        if lacking and seed not in stopped:
            sentences.append(f"{name}, seed {seed}: " + ("all tasks" if not there else ", ".join(lacking)))
    return sentences
