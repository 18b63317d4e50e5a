"""What a study says on standard error: a line with the time left for each running job, a line for each that ended."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from sparc_bench.study.rows import RunRow, TrialRow
from sparc_bench.study.worker import Done, Work

_TAIL = 4096
"""Bytes at the end of a log that hold its last step."""


class Watch:
    """The jobs that are running, and how many are done; without a terminal the lines of those that ended alone."""

    def __init__(self, study: str, work: int) -> None:
        self._console = Console(file=sys.stderr, markup=False, highlight=False, soft_wrap=True)
        self._bars = _Bars(self._console)
        self._whole = self._bars.add_task(f"study {study}", total=work)
        self._began: dict[str, tuple[float, TaskID]] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def more(self, work: int) -> None:
        """Work that was not known of before."""
        self._bars.update(self._whole, total=(self._bars.tasks[0].total or 0) + work)

    def started(self, work: Work) -> None:
        """A job begins."""
        self._began[work.label] = time.perf_counter(), self._bars.follow(work)

    def finished(self, work: Work, done: Done) -> None:
        """A job has ended."""
        began, bar = self._began.pop(work.label)
        self._bars.forget(bar)
        self._bars.advance(self._whole)
        whole = self._bars.tasks[0]
        place = f"[{whole.completed:.0f} of {whole.total:.0f}]"
        self._console.print(f"{place} {work.label}: {_outcome(done)} ({time.perf_counter() - began:.0f} s)")


def _outcome(done: Done) -> str:
    row = done.row
    if row is None:
        return "failed: " + " ".join(done.failures)
    if isinstance(row, TrialRow) and row.diverged_at is not None:
        return f"diverged at step {row.diverged_at}"
    if isinstance(row, RunRow) and row.state == "diverged":
        return f"diverged at step {row.step}"
    scores = ", ".join(f"{name} {value:.3f}" for name, value in row.val.items())
    return f"val {scores}" + "".join(f"; {sentence}" for sentence in done.failures)


class _Bars(Progress):
    """Bars that read the logs of the runs that they follow, wherever these run, each time they are drawn."""

    def __init__(self, console: Console) -> None:
        self._followed: dict[TaskID, Work] = {}
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        super().__init__(
            *columns,
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            refresh_per_second=2,
            disable=not sys.stderr.isatty(),
        )

    def follow(self, work: Work) -> TaskID:
        bar = self.add_task(work.label, total=work.recipe.steps)
        self._followed[bar] = work
        return bar

    def forget(self, bar: TaskID) -> None:
        del self._followed[bar]
        self.remove_task(bar)

    def get_renderables(self) -> Iterable[RenderableType]:
        for bar, work in list(self._followed.items()):
            evaluating = bool(work.tasks) and (work.folder / "summary.json").is_file()
            step = work.recipe.steps if evaluating else last_step(work.folder / "log.jsonl")
            self.update(bar, completed=step, description=work.label + ", evaluating" * evaluating)
        yield from super().get_renderables()


def last_step(log: Path) -> int:
    """The last step that a run's log holds; 0 where it has none yet."""
    try:
        with log.open("rb") as opened:
            opened.seek(0, 2)
            opened.seek(max(0, opened.tell() - _TAIL))
            lines = opened.read().splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            return int(json.loads(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue  # a line that is being written, or one that is of no step
    return 0
