"""The sets of final runs of a study: the first choice, a second one by another criterion, and equal CPU time.

Runs and records of the first choice have the places that any training has; all else lies in the study's own folders, so
that it neither replaces a kept model's records nor enters the leaderboard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from sparc_bench.cards.changes import with_values
from sparc_bench.cards.recipe import Recipe
from sparc_bench.cards.study_card import StudyCard
from sparc_bench.errors import UserError
from sparc_bench.study.study_rows import TrialRow, folder_of
from sparc_bench.study.trial_choice import best_trial, of_length

ROUNDED_TO, LEAST = 10, 10
"""Steps of a run of equal CPU time are a multiple of the first, and at least the second."""


class RunSet(StrEnum):
    """A set of final runs; the value names its folders and tables."""

    FIRST = "first"
    SECOND = "second"
    EQUAL_CPU = "equal_cpu"

    @property
    def after(self) -> str:
        """What follows a run's name: nothing for the first choice."""
        return {"first": "", "second": ", second choice", "equal_cpu": ", equal CPU time"}[self]

    def file(self, name: str) -> str:
        """The name of a table's file in this set: `runs.csv`, `runs_second.csv`."""
        stem, _, end = name.rpartition(".")
        return name if self is RunSet.FIRST else f"{stem}_{self}.{end}"


@dataclass(frozen=True)
class Final:
    """What is trained in full for one recipe in one set.

    Attributes:
        trial: the chosen trial.
        recipe: with its settings.
        runs: the set that holds its runs: where the second choice is the first one again, that of the first.
    """

    trial: TrialRow
    recipe: Recipe
    runs: RunSet


def sets_of(study: StudyCard) -> list[RunSet]:
    """The sets that a study asks for, in order."""
    second, timed = [RunSet.SECOND] * bool(study.second_criterion), [RunSet.EQUAL_CPU] * (study.cpu_seconds is not None)
    return [RunSet.FIRST, *second, *timed]


def criterion_of(study: StudyCard, of: RunSet) -> tuple[str, ...]:
    """The val scores whose mean chooses the settings of a set."""
    return study.second_criterion if of is RunSet.SECOND else study.criterion


def final(study: StudyCard, recipe: Recipe, trials: Sequence[TrialRow], of: RunSet) -> Final | None:
    """What is trained in full for a recipe in a set; None while trials are missing, or where all of them diverged.

    Raises:
        UserError: the trials lack a score of the criterion, or their CPU time.
    """
    best = best_trial(study, recipe, trials, criterion_of(study, of))
    if best is None:
        return None
    chosen = with_values(recipe, best.values)
    if of is RunSet.EQUAL_CPU:
        return Final(best, of_length(chosen, steps_within(study, best)), of)
    first = best_trial(study, recipe, trials)
    same = first is not None and first.trial == best.trial
    return Final(best, chosen, RunSet.FIRST if same else of)


def steps_within(study: StudyCard, trial: TrialRow) -> int:
    """The steps that fit into the study's CPU time by that of a trial: a multiple of ten, ten at least.

    Raises:
        UserError: the trial was run before its CPU time was kept.
    """
    if not trial.cpu_seconds:
        raise UserError(
            f"Study {study.name}: trial {trial.trial} of {trial.recipe} has no CPU time, which cpu_seconds in the card "
            "needs: delete its row in trials.csv and its run folder, and run the study again."
        )
    assert study.cpu_seconds is not None
    fitting = study.cpu_seconds / (trial.cpu_seconds / study.trial_steps)
    return max(LEAST, int(fitting) // ROUNDED_TO * ROUNDED_TO)


def results_folder(study: StudyCard, recipe: str, of: RunSet, results: Path) -> Path:
    """The folder that the records of a recipe's runs lie in."""
    apart = of is not RunSet.FIRST or recipe in study.variants
    return folder_of(study.name, results) / of if apart else results


def run_folder(study: StudyCard, recipe: str, of: RunSet, seed: int, runs: Path) -> Path:
    """The folder of a run."""
    apart = of is not RunSet.FIRST or recipe in study.variants
    return (trials_folder(study, recipe, runs) / of if apart else runs / recipe) / f"seed{seed}"


def trials_folder(study: StudyCard, recipe: str, runs: Path) -> Path:
    """The folder of a recipe's trials, and of its runs that are the study's alone."""
    return runs / "studies" / study.name / recipe
