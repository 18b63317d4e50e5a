"""Terminal output of all commands: the console, plain tables, progress bars on standard error."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

Row = tuple[str, ...]


def table(columns: Row, rows: Sequence[Row], whole: Collection[int] = (0,)) -> Table:
    """A plain table; columns with a number in `whole` stay on one line, the others wrap."""
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        drawn.add_column(column, no_wrap=number in whole, overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    return drawn


def console() -> Console:
    """The console on standard output; lines are 140 characters wide in a pipe or a file."""
    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 140)


def task_bar() -> Progress:
    """A progress bar on standard error, removed when it ends and absent without a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
