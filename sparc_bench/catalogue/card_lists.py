"""The cards of tasks and models as rows of a table, and the choice among tasks by family, suite and data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparc_bench.cards import discovery
from sparc_bench.cards.recipe import Recipe
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.catalogue.data_card import load_all, tasks_by_card
from sparc_bench.errors import UserError, nearest
from sparc_bench.terminal import Row


@dataclass(frozen=True)
class TaskFilter:
    """Filter of the listed tasks: those that fit all that is given.

    Attributes:
        family: of the task.
        suite: that holds it.
        data: a card of `sparc-bench data list` or a module of sparc_bench/datasets that it reads.
    """

    family: str | None = None
    suite: str | None = None
    data: str | None = None

    @property
    def given(self) -> dict[str, str]:
        """Option -> value."""
        values = {"family": self.family, "suite": self.suite, "data": self.data}
        return {option: value for option, value in values.items() if value is not None}


_IS = {"family": "of the family", "suite": "in the suite", "data": "on the data set"}


def chosen_tasks(only: TaskFilter) -> list[TaskCard]:
    """The cards of the tasks that fit, by name.

    Raises:
        UserError: a value that no task has, with the nearest that one has; no task fits all values.
    """
    cards = [discovery.task(name) for name in discovery.names("tasks")]
    having: dict[str, dict[str, set[str]]] = {
        "family": {card.name: {card.family} for card in cards},
        "suite": {card.name: set(card.suites) for card in cards},
        "data": _data_of(cards) if only.data is not None else {},
    }
    for option, value in only.given.items():
        known = set().union(*having[option].values())
        if value not in known:
            where = "sparc-bench data list" if option == "data" else "sparc-bench list tasks"
            raise UserError(f"No task is {_IS[option]} '{value}': {nearest(value, known, where)}")
    fitting = [c for c in cards if all(value in having[option][c.name] for option, value in only.given.items())]
    if not fitting:
        words = " and ".join(f"{_IS[option]} '{value}'" for option, value in only.given.items())
        raise UserError(f"No task is {words}: leave one of them out.")
    return fitting


def _data_of(cards: Sequence[TaskCard]) -> dict[str, set[str]]:
    """Task -> the data that it is on: its reader, and the cards of the catalogue that it reads from."""
    data = {card.name: {card.dataset} for card in cards}
    for name, tasks in tasks_by_card(cards, load_all()).items():
        for task in tasks:
            data[task].add(name)
    return data


def task_rows(only: TaskFilter = TaskFilter()) -> tuple[Row, Sequence[Row]]:
    """The columns and one row for each task that fits; see `chosen_tasks`."""
    cards = chosen_tasks(only)
    rows = [(card.name, card.title, card.family, ", ".join(card.suites), card.headline) for card in cards]
    return ("task", "title", "family", "suites", "headline"), rows


def model_rows() -> tuple[Row, Sequence[Row]]:
    """The columns and one row for each card of a model or recipe."""
    rows = []
    for name in discovery.names("models"):
        card = discovery.model(name)
        how = f"recipe ({card.objective})" if isinstance(card, Recipe) else card.family
        trained_on = card.model_card().trained_on if isinstance(card, Recipe) else card.trained_on
        rows.append((name, card.title, how, ", ".join(trained_on), "yes" if card.weights else "no"))
    return ("model", "title", "kind", "trained on", "weights here"), rows
