"""The lists that `sparc-bench list KIND` prints: one line for each card or module of a kind."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

from rich.table import Table

from sparc_bench.cards import discovery
from sparc_bench.cards.recipe import Recipe
from sparc_bench.errors import UserError, nearest
from sparc_bench.terminal import Row, table


def title_of(module: ModuleType) -> str:
    """The module's TITLE, or the first line of its docstring."""
    title: str = getattr(module, "TITLE", "")
    return title or (inspect.getdoc(module) or "").partition("\n")[0].rstrip(".")


def _tasks() -> tuple[Row, Sequence[Row]]:
    cards = [discovery.task(name) for name in discovery.names("tasks")]
    rows = [(card.name, card.title, card.family, ", ".join(card.suites), card.headline) for card in cards]
    return ("task", "title", "family", "suites", "headline"), rows


def _models() -> tuple[Row, Sequence[Row]]:
    rows = []
    for name in discovery.names("models"):
        card = discovery.model(name)
        how = f"recipe ({card.objective})" if isinstance(card, Recipe) else card.family
        trained_on = card.model_card().trained_on if isinstance(card, Recipe) else card.trained_on
        rows.append((name, card.title, how, ", ".join(trained_on), "yes" if card.weights else "no"))
    return ("model", "title", "kind", "trained on", "weights here"), rows


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
    "tasks": _tasks,
    "models": _models,
    "studies": _studies,
    "datasets": lambda: _modules("datasets", "provides", _sorted("PROVIDES")),
    "objectives": lambda: _modules("objectives", "source", lambda module: getattr(module, "SOURCE", "")),
    "encoders": lambda: _modules("encoders", "source", lambda module: getattr(module, "SOURCE", "")),
    "protocols": lambda: _modules("protocols", "needs of the data", _sorted("DATA")),
}


def listing(kind: str) -> Table:
    """All things of a kind as a table.

    Raises:
        UserError: no such kind; the sentence names the nearest.
    """
    if kind not in KINDS:
        raise UserError(f"There is no kind '{kind}' to list: {nearest(kind, KINDS)}")
    columns, rows = KINDS[kind]()
    return table(columns, rows)


def suites() -> list[str]:
    """Names of all suites that a task card names."""
    return sorted({suite for name in discovery.names("tasks") for suite in discovery.task(name).suites})
