"""`sparc-bench study`: a like-for-like comparison of recipes in one command that can be interrupted and continued.

Recipes of a study differ only in their objective and its options. Every recipe gets the same number of trials with
settings drawn from its box; the best trial by one criterion on val is trained with several seeds and evaluated.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from sparc_bench.cards import discovery
from sparc_bench.cards.binding import bind
from sparc_bench.cards.changes import described
from sparc_bench.cards.recipe import Recipe
from sparc_bench.cards.study_card import StudyCard, drawn_settings
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.errors import UserError
from sparc_bench.evaluation.evaluate import Settings
from sparc_bench.records.record import read_record, record_path
from sparc_bench.study.compared_recipes import recipes_of
from sparc_bench.study.job_progress import JobProgress
from sparc_bench.study.jobs import Job, JobResult, run_jobs
from sparc_bench.study.run_sets import Final, RunSet, final, results_folder, run_folder, sets_of, trials_folder
from sparc_bench.study.study_rows import RUNS, TRIALS, AnyRow, RunRow, TrialRow, folder_of, merge_rows
from sparc_bench.study.trial_choice import (
    TRIAL_SEED,
    best_trial,
    criterion,
    current_trials,
    differences,
    training_hash,
    trial_recipe,
)
from sparc_bench.training.score_names import refuse_unknown_scores


@dataclass
class _State:
    """The finished trials and runs of a study, and the jobs that are missing."""

    study: StudyCard
    recipes: dict[str, Recipe]
    tasks: tuple[TaskCard, ...]
    settings: Settings
    trials: list[TrialRow] = field(default_factory=list)
    runs: dict[RunSet, list[RunRow]] = field(default_factory=dict)
    failures: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.trials = self._merged(TRIALS, TrialRow, [])
        self.runs = {of: self._merged(of.file(RUNS), RunRow, []) for of in sets_of(self.study)}
        # the column is computed again, since the card's criterion may have changed
        self.trials = self._merged(TRIALS, TrialRow, [self._judged(row) for row in self.trials])

    def keep(self, row: TrialRow | RunRow, of: RunSet) -> None:
        """Write a row into its table."""
        if isinstance(row, TrialRow):
            self.trials = self._merged(TRIALS, TrialRow, [self._judged(row)])
        else:
            self.runs[of] = self._merged(of.file(RUNS), RunRow, [row])

    def _merged(self, table: str, kind: type[AnyRow], rows: list[AnyRow]) -> list[AnyRow]:
        path = folder_of(self.study.name, self.settings.results) / table
        return merge_rows(path, rows, kind, self.study.names)

    def _judged(self, row: TrialRow) -> TrialRow:
        if row.diverged_at is not None:
            return row
        second = self.study.second_criterion
        judged = {
            "criterion": criterion(self.study, row.val),
            "second_criterion": criterion(self.study, row.val, second) if second else None,
        }
        return row.model_copy(update=judged)

    @property
    def criteria(self) -> tuple[str, ...]:
        """The scores on val that decide."""
        return (*self.study.criterion, *self.study.second_criterion)

    def missing_trials(self, name: str) -> list[Job]:
        recipe = self.recipes[name]
        there = {row.trial for row in current_trials(self.study, recipe, self.trials)}
        return [
            Job(
                label=f"{name} trial {trial}",
                recipe=trial_recipe(self.study, recipe, values),
                folder=trials_folder(self.study, name, self.settings.runs) / f"trial{trial}",
                seed=TRIAL_SEED,
                settings=self.settings,
                trial=(trial, values),
                criteria=self.criteria,
                own_folder=True,
                scores_start=not self.study.validate,
            )
            for trial, values in enumerate(drawn_settings(self.study, name))
            if trial not in there
        ]

    def final(self, name: str, of: RunSet) -> Final | None:
        """What is trained in full for a recipe in a set; None while nothing is chosen."""
        return final(self.study, self.recipes[name], self.trials, of)

    def missing_runs(self, name: str, of: RunSet) -> list[Job]:
        """Runs of a set that are not trained or not evaluated; empty while no setting is chosen.

        Runs that a set has in common with the first choice are the first choice's.
        """
        chosen = self.final(name, of)
        if chosen is None or chosen.runs is not of:
            return []
        there = {row.seed: row for row in self.runs[of] if row.recipe == name}
        results = results_folder(self.study, name, of, self.settings.results)
        found = []
        for seed in range(self.study.runs_of(name)):
            row = there.get(seed)
            current = row is not None and row.recipe_hash == training_hash(chosen.recipe, seed)
            if (
                current
                and row is not None
                and (row.state == "diverged" or not self._missing_records(name, seed, results))
            ):
                continue
            job = Job(
                label=f"{name} seed {seed}{of.after}",
                recipe=chosen.recipe,
                folder=run_folder(self.study, name, of, seed, self.settings.runs),
                seed=seed,
                settings=replace(self.settings, seed=seed, results=results),
                tasks=self.tasks,
                runs=of,
                criteria=self.criteria,
                own_folder=of is not RunSet.FIRST or name in self.study.variants,
                scores_start=not self.study.validate,
            )
            found.append(job)
        return found

    def all_missing_runs(self, name: str) -> list[Job]:
        """The missing runs of a recipe in all sets."""
        return [job for of in self.runs for job in self.missing_runs(name, of)]

    def _missing_records(self, name: str, seed: int, results: Path) -> list[str]:
        """Names of the tasks without a record of the present protocol for the run of this seed."""
        return [task.name for task in self.tasks if not _has_record(results, name, seed, task)]


def _has_record(results: Path, recipe: str, seed: int, task: TaskCard) -> bool:
    path = record_path(results, recipe, seed, task.name, sample=task.sample, limit=None)
    if not (path.is_file() and path.with_suffix(".npz").is_file()):
        return False
    try:
        return read_record(path).protocol_hash == bind(task).protocol_hash()
    except UserError:
        return False


def run_study(study: StudyCard, settings: Settings, jobs: int, plugins: Sequence[Path], console: Console) -> int:
    """Execute the missing jobs of a study, `jobs` at once, and print a summary; can be interrupted at any time.

    Returns:
        The exit code: 0, or 1 where rows are still missing.

    Raises:
        UserError: an invalid card; a training or task that fails is reported and does not stop the others.
    """
    recipes = recipes_of(study)
    tasks = tuple(map(discovery.task, study.tasks))
    for task in tasks:
        bind(task)
    state = _State(study, recipes, tasks, settings)
    queue = deque(job for name in recipes for job in state.missing_trials(name))
    if queue:
        refuse_unknown_scores(recipes.values(), state.criteria, settings.data_root, f"Study {study.name}")
    queue.extend(job for name in recipes for job in state.all_missing_runs(name))
    try:
        with JobProgress(study.name, len(queue)) as progress:

            def finished(job: Job, done: JobResult) -> None:
                progress.finished(job, done)
                state.failures[job.label] = done.failures
                if done.row is None:
                    return
                state.keep(done.row, job.runs)
                if isinstance(done.row, TrialRow):
                    new = state.all_missing_runs(job.recipe.name)
                    progress.add(len(new))
                    queue.extend(new)

            # where CPU times are compared, no thread waits for another
            threads = None if study.cpu_seconds is None else 1
            run_jobs(queue, jobs, plugins, progress.started, finished, threads)
    finally:
        missing = print_summary(state, console)
    from sparc_bench.study.study_table import publish

    publish(study, settings.results, console)
    return 1 if missing else 0


def _named(chosen: Final, score: float | None) -> str:
    return f"trial {chosen.trial.trial} is chosen, criterion {score}: {described(chosen.trial.values)}"


def print_summary(state: _State, console: Console) -> list[str]:
    """Print the chosen, finished, diverged and missing trials and runs; returns the labels of the missing ones."""
    study = state.study
    missing, unlike = [], []
    done, expected = Counter[str](), Counter[str]()
    for name, recipe in state.recipes.items():
        trials = state.missing_trials(name)
        best = best_trial(study, recipe, state.trials)
        expected += Counter(trials=study.trials)
        done += Counter(trials=study.trials - len(trials))
        if best is None and not trials:
            console.print(f"{name} diverged in all of its {study.trials} trials:")
            for row in current_trials(study, recipe, state.trials):
                console.print(f"  trial {row.trial} at step {row.diverged_at} with {described(row.values)}")
            continue
        missing += [job.label for job in trials]
        for of in state.runs:
            seeds = range(study.runs_of(name))
            chosen = state.final(name, of)
            if chosen is None:
                expected += Counter(runs=len(seeds))
                missing += [f"{name} seed {seed}{of.after}" for seed in seeds]
                continue
            if of is RunSet.SECOND:
                same = chosen.runs is RunSet.FIRST
                shown = f"trial {chosen.trial.trial} again" if same else _named(chosen, chosen.trial.second_criterion)
                console.print(f"{name}{of.after}: {shown}")
            elif of is RunSet.EQUAL_CPU:
                console.print(f"{name}{of.after}: {chosen.recipe.steps} steps")
            else:
                console.print(f"{name}: {_named(chosen, chosen.trial.criterion)}")
            if chosen.runs is not of:
                continue
            absent = [job.label for job in state.missing_runs(name, of)]
            missing += absent
            expected += Counter(runs=len(seeds))
            done += Counter(runs=len(seeds) - len(absent))
            for run in state.runs[of]:
                label = f"{name} seed {run.seed}{of.after}"
                if run.recipe == name and run.state == "diverged" and label not in missing:
                    console.print(f"  seed {run.seed} diverged at step {run.step}")
        if best is None:
            continue
        unlike += differences(recipe, study, state.trials)
    if unlike:
        console.print("These cards do not hold their chosen values yet:")
        for sentence in unlike:
            console.print(f"  {sentence}")
    figures = " and ".join(f"{done[kind]} of {expected[kind]} {kind}" for kind in ("trials", "runs"))
    console.print(f"Study {study.name}: {figures} are done" + ("; these are missing:" if missing else "."))
    for label in missing:
        why = " ".join(state.failures.get(label, ()))
        console.print(f"  {label}: {why}" if why else f"  {label}")
    return missing
