"""The progress of a study on standard error: a bar with the time left for each running job, a line at its end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from sparc_bench.files.json_text import json_value
from sparc_bench.study.jobs import Job, JobResult
from sparc_bench.study.study_rows import RunRow, TrialRow
from sparc_bench.terminal import PlainConsole

_TAIL = 4096
"""Number of bytes read from the end of a log to find its last step."""


class JobProgress:
    """Bars of all running jobs and of the whole study; without a terminal only a line for each ended job."""

    def __init__(self, study: str, jobs: int) -> None:
        self._console = PlainConsole(file=sys.stderr, soft_wrap=True)
        self._bars = _Bars(self._console)
        self._whole = self._bars.add_task(f"study {study}", total=jobs)
        self._began: dict[str, tuple[float, TaskID]] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def add(self, jobs: int) -> None:
        """Add a number of jobs to the total."""
        self._bars.update(self._whole, total=(self._bars.tasks[0].total or 0) + jobs)

    def started(self, job: Job) -> None:
        """Show the bar of a job that starts."""
        self._began[job.label] = time.perf_counter(), self._bars.follow(job)

    def finished(self, job: Job, done: JobResult) -> None:
        """Print the line of a job that ended."""
        began, bar = self._began.pop(job.label)
        self._bars.forget(bar)
        self._bars.advance(self._whole)
        whole = self._bars.tasks[0]
        place = f"[{whole.completed:.0f} of {whole.total:.0f}]"
        self._console.print(f"{place} {job.label}: {_outcome(done)} ({time.perf_counter() - began:.0f} s)")


def _outcome(done: JobResult) -> str:
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
    """Progress bars that read the steps from the logs of the runs, in whatever process these run."""

    def __init__(self, console: Console) -> None:
        self._followed: dict[TaskID, Job] = {}
        description = TextColumn("{task.description}", markup=False)
        columns = (description, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        super().__init__(
            *columns,
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            refresh_per_second=2,
            disable=not sys.stderr.isatty(),
        )

    def follow(self, job: Job) -> TaskID:
        bar = self.add_task(job.label, total=job.recipe.steps)
        self._followed[bar] = job
        return bar

    def forget(self, bar: TaskID) -> None:
        del self._followed[bar]
        self.remove_task(bar)

    def get_renderables(self) -> Iterable[RenderableType]:
        for bar, job in list(self._followed.items()):
            evaluating = bool(job.tasks) and (job.folder / "summary.json").is_file()
            step = job.recipe.steps if evaluating else last_step(job.folder / "log.jsonl")
            self.update(bar, completed=step, description=job.label + ", evaluating" * evaluating)
        yield from super().get_renderables()


def last_step(log: Path) -> int:
    """The last step in a run's log; 0 where it has none yet."""
    try:
        with log.open("rb") as opened:
            opened.seek(0, 2)
            opened.seek(max(0, opened.tell() - _TAIL))
            lines = opened.read().splitlines()
    except OSError:
        return 0
    for line in reversed(lines):
        try:
            return int(json_value(line)["step"])
        except (ValueError, KeyError, TypeError):
            continue  # a line that is still being written, or a line without a step
    return 0
