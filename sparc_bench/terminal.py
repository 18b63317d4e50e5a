"""Terminal output of all commands: the console, plain tables, progress bars on standard error."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table

from sparc_bench.foreign_text import visible

Row = tuple[str, ...]

SECONDS_BETWEEN_LINES = 10.0
"""Seconds between the lines of a progress display without a terminal."""


def table(columns: Row, rows: Sequence[Row], whole: Collection[int] = (0,)) -> Table:
    """A plain table; columns with a number in `whole` stay on one line, the others wrap."""
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        drawn.add_column(column, no_wrap=number in whole, overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    return drawn


class PlainConsole(Console):
    """A console that takes every text as it is: no marks are read in it, and control characters are escaped."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - those of rich
        super().__init__(**options, markup=False, emoji=False, highlight=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable, as rich has them."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text, keep="\n"), segment.style)


def console() -> Console:
    """The console on standard output; lines are 140 characters wide in a pipe or a file."""
    return PlainConsole(width=None if sys.stdout.isatty() else 140)


class ProgressDisplay(Progress):
    """Progress on standard error: bars on a terminal; elsewhere a line now and then for each running task.

    Displays that follow each other share the clock, so that many short ones are not silent together.
    """

    _said = time.monotonic()

    def __init__(self, *columns: ProgressColumn, transient: bool = True) -> None:
        on_terminal = sys.stderr.isatty()
        super().__init__(*columns, console=PlainConsole(stderr=True), transient=transient, disable=not on_terminal)
        self._stopped = threading.Event()
        self._writer = None if on_terminal else threading.Thread(target=self._write, daemon=True)

    def start(self) -> None:
        """Show progress from now on."""
        super().start()
        # work that ends within a fifth of that time needs no line
        ProgressDisplay._said = max(ProgressDisplay._said, time.monotonic() - 0.8 * SECONDS_BETWEEN_LINES)
        if self._writer is not None:
            self._writer.start()

    def stop(self) -> None:
        """Show no more progress."""
        self._stopped.set()
        if self._writer is not None and self._writer.is_alive():
            self._writer.join()
        super().stop()

    def _write(self) -> None:
        while not self._stopped.wait(max(0.0, ProgressDisplay._said + SECONDS_BETWEEN_LINES - time.monotonic())):
            ProgressDisplay._said = time.monotonic()
            for task in self.tasks:
                if task.visible:
                    print(progress_line(task), file=sys.stderr, flush=True)  # noqa: T201 - beside the bars of a terminal


def progress_line(task: Task) -> str:
    """Description, share done, time left and further `figures` of a running task."""
    if task.total is None:
        return f"{task.description}: {task.elapsed or 0:.0f} s so far"
    left = task.time_remaining
    parts = [
        f"{task.completed:.0f} of {task.total:.0f}",
        *([f"{left:.0f} s left" if left < 120 else f"{left / 60:.0f} min left"] if left else []),
        *([task.fields["figures"]] if task.fields.get("figures") else []),
    ]
    return f"{task.description}: {', '.join(parts)}"


def task_bar() -> ProgressDisplay:
    """The progress display of one task or a few, removed when it ends."""
    return ProgressDisplay(TextColumn("{task.description}", markup=False), BarColumn(), TimeRemainingColumn())
