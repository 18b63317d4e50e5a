"""What a study computes: a trial or a run at a time, in this process or in several that live as long as there is work.

A worker keeps what it has read, because reading and decoding takes longer than some trials.
"""

from __future__ import annotations

import contextlib
import json
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
from sparc_bench.errors import UserError
from sparc_bench.evaluation.evaluate import Settings, evaluate
from sparc_bench.study.choice import training_hash
from sparc_bench.study.rows import RunRow, TrialRow
from sparc_bench.training.loop import NotFiniteError
from sparc_bench.training.run_inputs import RunInputs, read_run_inputs
from sparc_bench.training.train import train

SHELF = 2
"""Data sets that a worker keeps in memory: recipes of a study read one, or one with and one without negatives."""


@dataclass(frozen=True)
class Work:
    """One trial or one run.

    Attributes:
        label: for a person.
        recipe: with the settings of this trial or run.
        folder: to train into.
        seed: of the training.
        settings: of the evaluation; device and data root are the training's too.
        trial: number of the trial and its drawn values, None for a run.
        tasks: that a run is evaluated on.
    """

    label: str
    recipe: Recipe
    folder: Path
    seed: int
    settings: Settings
    trial: tuple[int, dict[str, Any]] | None = None
    tasks: tuple[TaskCard, ...] = ()


@dataclass(frozen=True)
class Done:
    """What became of it: a row (None where nothing can be said of the method) and sentences about what failed."""

    row: TrialRow | RunRow | None
    failures: tuple[str, ...] = ()


def do(work: Work) -> Done:
    """Train, evaluate a run, and say what came out; a mistake that the user can mend fails this work alone."""
    began = 0.0
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
            data = _data(work)
            began = time.perf_counter()
            summary = train(
                work.recipe, work.folder, work.settings.data_root, work.seed, work.settings.runtime.device, data=data
            )
    except NotFiniteError as error:
        return Done(_diverged(work, str(error), round(time.perf_counter() - began, 1)))
    except UserError as error:
        return Done(None, (str(error),))
    val = {name: round(value, 6) for name, value in summary["val"].items()}
    if work.trial is not None:
        trial, values = work.trial
        key = training_hash(work.recipe, work.seed)
        row = TrialRow(
            hash=key, recipe=work.recipe.name, trial=trial, values=values, val=val, seconds=summary["seconds"]
        )
        return Done(row)
    try:
        results = evaluate(str(work.folder), work.tasks, work.settings)
    except UserError as error:
        return Done(None, (str(error),))
    seconds = sum(result.record.seconds for result in results if result.record is not None)
    run = RunRow(
        recipe=work.recipe.name,
        seed=work.seed,
        state="done",
        step=summary["steps"],
        val=val,
        train_seconds=summary["seconds"],
        eval_seconds=round(seconds, 1),
        recipe_hash=training_hash(work.recipe, work.seed),
    )
    return Done(run, tuple(f"{result.task}: {result.error}" for result in results if result.error is not None))


def perform(
    queue: deque[Work],
    jobs: int,
    plugins: Sequence[Path],
    started: Callable[[Work], None],
    finished: Callable[[Work, Done], None],
) -> None:
    """Do all work of a queue, which `finished` may add to, in this process (one job) or in `jobs` others.

    Raises:
        UserError: a worker process was ended from outside.
        RuntimeError: a mistake of ours in a worker, with its traceback.
    """
    if jobs == 1:
        while queue:
            work = queue.popleft()
            started(work)
            finished(work, do(work))
        return
    workers: list[_Worker] = []
    try:
        while queue or any(worker.work for worker in workers):
            while queue and sum(worker.work is not None for worker in workers) < jobs:
                idle = next((worker for worker in workers if worker.work is None), None)
                if idle is None:
                    idle = _start(jobs, plugins)
                    workers.append(idle)
                idle.work = queue.popleft()
                idle.pipe.send(idle.work)
                started(idle.work)
            ready = wait([worker.pipe for worker in workers if worker.work is not None])
            for worker in [worker for worker in workers if worker.pipe in ready]:
                work, done = worker.answer()
                finished(work, done)
    finally:
        for worker in workers:
            worker.process.terminate()
            worker.process.join()
            worker.pipe.close()


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    work: Work | None = None

    def answer(self) -> tuple[Work, Done]:
        assert self.work is not None
        try:
            done = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            raise UserError(
                f"The process of {self.work.label} was ended from outside (exit code {self.process.exitcode}), most "
                "likely because memory ran out: lower --jobs and run the command again."
            ) from None
        if isinstance(done, str):
            raise RuntimeError(f"{self.work.label} failed in its process:\n{done}")
        work, self.work = self.work, None
        return work, done


def _start(jobs: int, plugins: Sequence[Path]) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a fork of a process that has used torch's threads can hang
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, max(1, cores() // jobs), tuple(plugins)))
    process.start()
    theirs.close()
    return _Worker(process, ours)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _serve(pipe: Connection, threads: int, plugins: Sequence[Path]) -> None:
    """A worker process: work in, what became of it out, until the other end of the pipe is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's, which ends its workers
    torch.set_num_threads(threads)
    for path in plugins:
        discovery.add_plugin(path)
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        while True:
            work = pipe.recv()
            try:
                answer: Done | str = do(work)
            except Exception:
                answer = traceback.format_exc()
            pipe.send(answer)


def _data(work: Work) -> RunInputs | None:
    """What the work trains on; None where its run is finished and only read."""
    if work.trial is not None:
        _clear_other(work.folder, work.recipe)
    finished = (work.folder / "summary.json").is_file()
    return None if finished else _prepared(work.recipe, work.settings.data_root)


_shelf: dict[tuple[str, Path | None], RunInputs] = {}


def _prepared(recipe: Recipe, data_root: Path | None) -> RunInputs:
    """What the recipe reads, kept for the next that reads the same."""
    key = recipe.model_dump_json(include={"data", "init", "image", "text", "batch_size"}), data_root
    if key not in _shelf:
        while len(_shelf) >= SHELF:
            del _shelf[next(iter(_shelf))]
        _shelf[key] = read_run_inputs(recipe, data_root)
    return _shelf[key]


def _clear_other(folder: Path, recipe: Recipe) -> None:
    """Remove a trial's folder where it holds a trial of an earlier box; its row was stale."""
    file = folder / "recipe.json"
    if not file.is_file():
        return
    try:
        there = training_settings(parse(Recipe, json.loads(file.read_text(encoding="utf-8")), str(file)))
    except (ValueError, UserError):
        there = {}
    if there != training_settings(recipe):
        shutil.rmtree(folder)


def _diverged(work: Work, sentence: str, seconds: float) -> TrialRow | RunRow:
    found = re.search(r"at step (\d+)", sentence)
    assert found is not None, sentence
    step = int(found[1])
    message = sentence.partition(": ")[0]  # what follows is about folders of this machine
    key = training_hash(work.recipe, work.seed)
    if work.trial is None:
        return RunRow(
            recipe=work.recipe.name,
            seed=work.seed,
            state="diverged",
            step=step,
            message=message,
            train_seconds=seconds,
            recipe_hash=key,
        )
    trial, values = work.trial
    return TrialRow(
        hash=key,
        recipe=work.recipe.name,
        trial=trial,
        values=values,
        seconds=seconds,
        diverged_at=step,
        message=message,
    )
