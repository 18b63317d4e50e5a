"""The lists that `sparc-bench list KIND` prints: one line for each card or module of a kind."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

from rich.table import Table

from sparc_bench.cards import discovery
from sparc_bench.catalogue.card_lists import TaskFilter, model_rows, task_rows
from sparc_bench.errors import UserError, nearest
from sparc_bench.terminal import Row, table


def title_of(module: ModuleType) -> str:
    """The module's TITLE, or the first line of its docstring."""
    title: str = getattr(module, "TITLE", "")
    return title or (inspect.getdoc(module) or "").partition("\n")[0].rstrip(".")


def _studies() -> tuple[Row, Sequence[Row]]:
    cards = [discovery.study(name) for name in discovery.names("studies")]
    rows = [(card.name, card.title, ", ".join(card.names), ", ".join(card.tasks)) for card in cards]
    return ("study", "title", "recipes", "tasks"), rows


def _modules(kind: str, column: str, cell: Callable[[ModuleType], str]) -> tuple[Row, Sequence[Row]]:
    rows = []
    for name in discovery.names(kind):
        module = discovery.declared(kind, name)
        rows.append((name, title_of(module), cell(module)))
    return (kind.removesuffix("s"), "title", column), rows


def _sorted(attribute: str) -> Callable[[ModuleType], str]:
    return lambda module: ", ".join(sorted(getattr(module, attribute)))


KINDS: Mapping[str, Callable[[], tuple[Row, Sequence[Row]]]] = {
    "tasks": task_rows,
    "models": model_rows,
    "studies": _studies,
    "datasets": lambda: _modules("datasets", "provides", _sorted("PROVIDES")),
    "objectives": lambda: _modules("objectives", "source", lambda module: getattr(module, "SOURCE", "")),
    "encoders": lambda: _modules("encoders", "source", lambda module: getattr(module, "SOURCE", "")),
    "protocols": lambda: _modules("protocols", "needs of the data", _sorted("DATA")),
}


def listing(kind: str, only: TaskFilter = TaskFilter()) -> Table:
    """All things of a kind as a table; of tasks those that fit.

    Raises:
        UserError: no such kind, with the nearest; a filter of tasks for another kind; see `chosen_tasks`.
    """
    if kind not in KINDS:
        raise UserError(f"There is no kind '{kind}' to list: {nearest(kind, KINDS)}")
    if only.given and kind != "tasks":
        option = next(iter(only.given))
        raise UserError(f"--{option} chooses among tasks: write sparc-bench list tasks, or leave --{option} out.")
    columns, rows = task_rows(only) if kind == "tasks" else KINDS[kind]()
    return table(columns, rows)


def suites() -> list[str]:
    """Names of all suites that a task card names."""
    return sorted({suite for name in discovery.names("tasks") for suite in discovery.task(name).suites})
