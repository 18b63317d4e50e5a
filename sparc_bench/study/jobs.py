"""The jobs of a study: trials and runs, executed in this process or in several worker processes.

A worker keeps data sets in memory, because reading and decoding them takes longer than some trials.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import shutil
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
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
from sparc_bench.study.study_rows import RunRow, TrialRow
from sparc_bench.study.trial_choice import training_hash
from sparc_bench.training.loop import NotFiniteError
from sparc_bench.training.run_inputs import RunInputs, read_run_inputs
from sparc_bench.training.train import train

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
    """

    label: str
    recipe: Recipe
    folder: Path
    seed: int
    settings: Settings
    trial: tuple[int, dict[str, Any]] | None = None
    tasks: tuple[TaskCard, ...] = ()


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
            summary = train(
                job.recipe, job.folder, job.settings.data_root, job.seed, job.settings.runtime.device, data=data
            )
    except NotFiniteError as error:
        return JobResult(_diverged(job, str(error), round(time.perf_counter() - began, 1)))
    except UserError as error:
        return JobResult(None, (str(error),))
    # of tasks (a recipe's [validate]) those that they are ranked by, which are fractions
    val = {name: round(summary["val"][name], 6) for name in summary.get("val_headlines", summary["val"])}
    if job.trial is not None:
        trial, values = job.trial
        key = training_hash(job.recipe, job.seed)
        row = TrialRow(
            hash=key, recipe=job.recipe.name, trial=trial, values=values, val=val, seconds=summary["seconds"]
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
    )
    return JobResult(run, tuple(f"{result.task}: {result.error}" for result in results if result.error is not None))


def run_jobs(
    queue: deque[Job],
    jobs: int,
    plugins: Sequence[Path],
    started: Callable[[Job], None],
    finished: Callable[[Job, JobResult], None],
) -> None:
    """Execute all jobs of a queue, to which `finished` may add, in this process (jobs = 1) or in `jobs` workers.

    Raises:
        UserError: a worker process was killed.
        RuntimeError: a bug in a worker, with its traceback.
    """
    if jobs == 1:
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
                    idle = _start(jobs, plugins)
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


def _start(jobs: int, plugins: Sequence[Path]) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a fork of a process that has used torch's threads can hang
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, max(1, cores() // jobs), tuple(plugins)))
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
    if job.trial is not None:
        _clear_other(job.folder, job.recipe)
    finished = (job.folder / "summary.json").is_file()
    return None if finished else _prepared(job.recipe, job.settings.data_root)


_shelf: dict[tuple[str, Path | None], RunInputs] = {}


def _prepared(recipe: Recipe, data_root: Path | None) -> RunInputs:
    """The training data of a recipe, kept in memory for the next recipe with the same data."""
    key = recipe.model_dump_json(include={"data", "init", "image", "text", "batch_size"}), data_root
    if key not in _shelf:
        while len(_shelf) >= SHELF:
            del _shelf[next(iter(_shelf))]
        _shelf[key] = read_run_inputs(recipe, data_root)
    return _shelf[key]


def _clear_other(folder: Path, recipe: Recipe) -> None:
    """Remove a trial's folder where it holds a trial with other settings (from an earlier box)."""
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
