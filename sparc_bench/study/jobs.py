"""The jobs of a study: trials and runs, executed in this process or in several worker processes.

A worker keeps data sets in memory, because reading and decoding them takes longer than some trials.
"""

from __future__ import annotations

import contextlib
import fnmatch
import math
import multiprocessing
import os
import re
import shutil
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from sparc_bench.cards import discovery
from sparc_bench.cards.card import parse
from sparc_bench.cards.recipe import Recipe, training_settings
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.errors import StoppedError, UserError
from sparc_bench.evaluation.evaluate import Settings, evaluate
from sparc_bench.files.json_text import json_value
from sparc_bench.stop_signals import raise_stopped
from sparc_bench.study.run_sets import RunSet
from sparc_bench.study.study_rows import Gain, RunRow, TrialRow
from sparc_bench.study.trial_choice import training_hash
from sparc_bench.training.loop import NotFiniteError
from sparc_bench.training.run_inputs import RunInputs, read_run_inputs
from sparc_bench.training.train import train
from sparc_bench.two_towers.model import objective_and_options

SHELF = 2
"""Number of data sets that a worker keeps: recipes of a study read one, or one with and one without negatives."""


@dataclass(frozen=True)
class Job:
    """One trial or one run.

    Attributes:
        label: name in progress lines and messages.
        recipe: recipe with the settings of this trial or run.
        folder: run folder of the training.
        seed: seed of the training.
        settings: settings of the evaluation; the training uses their device and data root.
        trial: number of the trial and its drawn values; None for a run.
        tasks: tasks that a run is evaluated on.
        runs: set that a run belongs to.
        criteria: scores on val that a row keeps beside the headlines.
        own_folder: whether the folder is the study's alone, so that what another setting left there may go.
        scores_start: whether the tasks on val are scored before the first step too.
    """

    label: str
    recipe: Recipe
    folder: Path
    seed: int
    settings: Settings
    trial: tuple[int, dict[str, Any]] | None = None
    tasks: tuple[TaskCard, ...] = ()
    runs: RunSet = RunSet.FIRST
    criteria: tuple[str, ...] = ()
    own_folder: bool = False
    scores_start: bool = True


@dataclass(frozen=True)
class JobResult:
    """The row of a finished job (None where the failure is not the method's) and one sentence for each failure."""

    row: TrialRow | RunRow | None
    failures: tuple[str, ...] = ()


def run_job(job: Job) -> JobResult:
    """The result of a job: train, and evaluate a run; a UserError fails this job alone."""
    began = 0.0
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
            data = _data(job)
            began = time.perf_counter()
            settings = job.settings
            summary = train(
                job.recipe,
                job.folder,
                settings.data_root,
                job.seed,
                settings.runtime.device,
                data=data,
                scores_start=job.scores_start,
            )
    except NotFiniteError as error:
        return JobResult(_diverged(job, str(error), round(time.perf_counter() - began, 1)))
    except UserError as error:
        return JobResult(None, (str(error),))
    # of tasks (a recipe's [validate]) those that they are ranked by or that decide, which are fractions
    found = summary["val"]
    decide = [name for criterion in job.criteria for name in fnmatch.filter(found, criterion)]
    named = (*summary.get("val_headlines", found), *decide)
    val = {name: round(found[name], 6) for name in named}
    measured = {"cpu_seconds": summary.get("cpu_seconds"), "held_out": gains(summary.get("held_out") or {})}
    if job.trial is not None:
        trial, values = job.trial
        key = training_hash(job.recipe, job.seed)
        row = TrialRow(
            hash=key,
            recipe=job.recipe.name,
            trial=trial,
            values=values,
            val=val,
            seconds=summary["seconds"],
            **measured,
        )
        return JobResult(row)
    try:
        results = evaluate(str(job.folder), job.tasks, job.settings)
    except UserError as error:
        return JobResult(None, (str(error),))
    seconds = sum(result.record.seconds for result in results if result.record is not None)
    run = RunRow(
        recipe=job.recipe.name,
        seed=job.seed,
        state="done",
        step=summary["steps"],
        val=val,
        train_seconds=summary["seconds"],
        eval_seconds=round(seconds, 1),
        recipe_hash=training_hash(job.recipe, job.seed),
        **measured,
    )
    return JobResult(run, tuple(f"{result.task}: {result.error}" for result in results if result.error is not None))


def gains(held_out: Mapping[str, Any]) -> dict[str, Gain]:
    """Name -> value, low and high of an objective's figures on held-out pairs that have a finite interval.

    >>> gains({"captions": 512, "gain_over_shuffled": {"value": 0.04, "low": 0.01, "high": 0.07}})
    {'gain_over_shuffled': (0.04, 0.01, 0.07)}
    """
    found = {}
    for name, figure in held_out.items():
        if isinstance(figure, Mapping) and {"value", "low", "high"} <= figure.keys():
            value, low, high = (round(float(figure[key]), 6) for key in ("value", "low", "high"))
            if all(map(math.isfinite, (value, low, high))):
                found[name] = (value, low, high)
    return found


def run_jobs(
    queue: deque[Job],
    jobs: int,
    plugins: Sequence[Path],
    started: Callable[[Job], None],
    finished: Callable[[Job, JobResult], None],
    threads: int | None = None,
) -> None:
    """Execute all jobs of a queue, to which `finished` may add, in this process (jobs = 1) or in `jobs` workers.

    Args:
        queue: the jobs.
        jobs: how many at once.
        plugins: files that the workers load.
        started: called with each job that starts.
        finished: called with each job that ended, and its result.
        threads: torch's threads in each job; None: the cores are shared evenly.

    Raises:
        UserError: a worker process was killed.
        RuntimeError: a bug in a worker, with its traceback.
    """
    if jobs == 1:
        with _threads(threads):
            while queue:
                job = queue.popleft()
                started(job)
                finished(job, run_job(job))
        return
    workers: list[_Worker] = []
    try:
        while queue or any(worker.job for worker in workers):
            while queue and sum(worker.job is not None for worker in workers) < jobs:
                idle = next((worker for worker in workers if worker.job is None), None)
                if idle is None:
                    idle = _start(threads or max(1, cores() // jobs), plugins)
                    workers.append(idle)
                idle.job = queue.popleft()
                idle.pipe.send(idle.job)
                started(idle.job)
            ready = wait([worker.pipe for worker in workers if worker.job is not None])
            for worker in [worker for worker in workers if worker.pipe in ready]:
                job, done = worker.answer()
                finished(job, done)
    finally:
        for worker in workers:
            worker.process.terminate()
            worker.process.join()
            worker.pipe.close()


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    job: Job | None = None

    def answer(self) -> tuple[Job, JobResult]:
        assert self.job is not None
        try:
            done = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            raise UserError(
                f"The process of {self.job.label} was ended from outside (exit code {self.process.exitcode}), most "
                "likely because memory ran out: lower --jobs and run the command again."
            ) from None
        if isinstance(done, str):
            raise RuntimeError(f"{self.job.label} failed in its process:\n{done}")
        job, self.job = self.job, None
        return job, done


@contextlib.contextmanager
def _threads(number: int | None) -> Iterator[None]:
    """So many of torch's threads within the block; None: as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _start(threads: int, plugins: Sequence[Path]) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a fork of a process that has used torch's threads can hang
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, threads, tuple(plugins)))
    process.start()
    theirs.close()
    return _Worker(process, ours)


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _serve(pipe: Connection, threads: int, plugins: Sequence[Path]) -> None:
    """Main function of a worker process: receive jobs and send their results until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C and ends its workers
    torch.set_num_threads(threads)
    for path in plugins:
        discovery.add_plugin(path)
    ended = (EOFError, BrokenPipeError, ConnectionResetError, StoppedError)
    signal.signal(signal.SIGTERM, raise_stopped)  # a training ends its step and writes a checkpoint
    with contextlib.suppress(*ended):
        while True:
            job = pipe.recv()
            try:
                answer: JobResult | str = run_job(job)
            except Exception:
                answer = traceback.format_exc()
            pipe.send(answer)


def _data(job: Job) -> RunInputs | None:
    """The training data of a job; None where its run is trained already."""
    if job.own_folder:
        _clear_other(job.folder, job.recipe)
    finished = (job.folder / "summary.json").is_file()
    return None if finished else _prepared(job.recipe, job.settings.data_root, job.settings.runtime.device)


_shelf: dict[tuple[str, int, Path | None, str], RunInputs] = {}


def _prepared(recipe: Recipe, data_root: Path | None, device: str) -> RunInputs:
    """The training data of a recipe, kept in memory for the next recipe with the same data."""
    loss, options = objective_and_options(recipe)
    decides = recipe.model_dump_json(include={"data", "init", "freeze", "image", "text", "batch_size"})
    key = decides, loss.tower_options(options).get("branches", 0), data_root, device
    if key not in _shelf:
        while len(_shelf) >= SHELF:
            del _shelf[next(iter(_shelf))]
        _shelf[key] = read_run_inputs(recipe, data_root, device)
    return _shelf[key]


def _clear_other(folder: Path, recipe: Recipe) -> None:
    """Remove a folder of the study where it holds other settings (of an earlier box, or of another choice)."""
    file = folder / "recipe.json"
    if not file.is_file():
        return
    try:
        there = training_settings(parse(Recipe, json_value(file.read_bytes()), str(file)))
    except (ValueError, UserError):
        there = {}
    if there != training_settings(recipe):
        shutil.rmtree(folder)


def _diverged(job: Job, sentence: str, seconds: float) -> TrialRow | RunRow:
    found = re.search(r"at step (\d+)", sentence)
    assert found is not None, sentence
    step = int(found[1])
    message = sentence.partition(": ")[0]  # the rest names folders of this machine
    key = training_hash(job.recipe, job.seed)
    if job.trial is None:
        return RunRow(
            recipe=job.recipe.name,
            seed=job.seed,
            state="diverged",
            step=step,
            message=message,
            train_seconds=seconds,
            recipe_hash=key,
        )
    trial, values = job.trial
    return TrialRow(
        hash=key,
        recipe=job.recipe.name,
        trial=trial,
        values=values,
        seconds=seconds,
        diverged_at=step,
        message=message,
    )
