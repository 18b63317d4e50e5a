"""Origin of a task's classes and photos in another data set, as class lists and data cards state it, for exposure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TypedDict

from sparc_bench.cards.prompts import classes_from
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.catalogue.data_card import DataCard, cards_of_task, folder, load_all


class Origins(TypedDict):
    """Where a task's classes and photos come from.

    Attributes:
        classes_from: sources of photos, as photo lists name them, whose classes it scores.
        photos_from: photo list DATASET:SPLIT that holds all its photos; "" for none.
    """

    classes_from: set[str]
    photos_from: str


def origins(task: TaskCard, classes: Sequence[str] = ()) -> Origins:
    """Origins of a task, from its card, the data cards of its folder and the classes of its data."""
    cards = cards_of_task(task, _cards(folder()))
    named = [each for each in (task.data.get("classes"), task.options.get("classes")) if isinstance(each, str)]
    return Origins(
        classes_from=classes_from(named, classes) | {card.classes_from for card in cards if card.classes_from},
        photos_from=next((card.photos_from for card in cards if card.photos_from), ""),
    )


@cache
def _cards(_folder: Path) -> tuple[DataCard, ...]:
    return tuple(load_all())
