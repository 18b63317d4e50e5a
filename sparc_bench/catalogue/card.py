"""The card of a data set on disk, `tasks/data/NAME.toml`, and which card a task reads from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Self

from pydantic import Field, model_validator

from sparc_bench.cards import discovery
from sparc_bench.cards.card import Strict, parse, read_toml
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.errors import UserError, nearest

Counts = dict[str, int]
"""Counts by name, as `DataSplit.counts` gives them and [expect] of a task card asks for them."""


class DataCard(Strict):
    """One folder under the data root: what a person has to know to fill it, and what it then has to hold."""

    name: str
    title: str
    folder: str = Field(description="under the data root; empty: nothing lies on disk")
    instead: str = Field(
        default="", description="a folder with the same data in another form, which the reader takes too"
    )
    readers: tuple[str, ...] = Field(description="modules of sparc_bench/datasets that read this folder")
    part_of: str = Field(default="", description="the card of the published data set that this is only a part of")
    photos_in: tuple[str, ...] = Field(
        default=(), description="the cards whose folders hold its photos, where not this"
    )
    licence: str
    size: str = Field(description="on disk, photos and annotations; about, where nobody measured it")
    home: str = Field(description="its owners' page or repository")
    obtain: str = Field(description="what to get there and where to put it, for a person")
    layout: str = Field(default="", description="the folder as a tree")
    files: dict[str, str] = Field(
        default={}, description="annotation file in the folder -> its sha256, empty where no public one is known"
    )
    folders: tuple[str, ...] = Field(default=(), description="folders of photos in the folder")
    splits: dict[str, Counts] = Field(default={}, description="published split -> its counts")
    source: str = Field(description="where counts, sizes and checksums were read or computed")
    notes: str = Field(default="", description="what a person should know before numbers on it are compared")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        odd = [path for path in (*self.files, *self.folders, self.folder, self.instead) if _leaves(path)]
        if odd:
            raise ValueError(f"'{odd[0]}' is no path inside the data root: write it relative, with / between folders")
        wrong = [path for path, digest in self.files.items() if digest and not re.fullmatch(r"[0-9a-f]{64}", digest)]
        if wrong:
            raise ValueError(f"the sha256 of '{wrong[0]}' has not 64 digits of 0-9 and a-f: copy it whole")
        if self.folder and not self.layout:
            raise ValueError("the key 'layout' is missing: draw the folder as a tree")
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """Everything that the folder is made of: annotation files, then folders of photos."""
        return (*self.files, *self.folders)


def _leaves(path: str) -> bool:
    return "\\" in path or path.startswith(("/", "~")) or ".." in PurePosixPath(path).parts


def folder() -> Path:
    """Where the cards lie."""
    return discovery.cards_folder("tasks") / "data"


def names() -> list[str]:
    """Names of all cards."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def read_card(path: Path) -> DataCard:
    """The card in a file."""
    return parse(DataCard, {"name": path.stem, **read_toml(path)}, str(path))


def load(name: str) -> DataCard:
    """The card of that name; raises UserError with the nearest name."""
    if name not in names():
        raise UserError(f"There is no data set '{name}': {nearest(name, names(), 'sparc-bench data list')}")
    return read_card(folder() / f"{name}.toml")


def load_all() -> list[DataCard]:
    """All cards, by name."""
    return [read_card(folder() / f"{name}.toml") for name in names()]


def homes(task: TaskCard, cards: Sequence[DataCard]) -> list[DataCard]:
    """The cards whose folder a task's reader has as its `folder`: one, where the catalogue is whole.

    Of a folder within a folder (`imagenet1k/val`) it is the innermost that has a card.
    """
    return _homes(task, _folders(task)[0], cards)


def _homes(task: TaskCard, folder: str, cards: Sequence[DataCard]) -> list[DataCard]:
    found = [card for card in cards if task.dataset in card.readers and _holds(card, folder)]
    innermost = max((len(card.folder) for card in found), default=0)
    return [card for card in found if len(card.folder) == innermost]


def tasks_by_card(tasks: Sequence[TaskCard], cards: Sequence[DataCard]) -> dict[str, list[str]]:
    """Card -> the tasks that read from its folder, be it for annotations or for photos alone; names of both."""
    needed: dict[str, list[str]] = {card.name: [] for card in cards}
    for task in tasks:
        own, others = _folders(task)
        here = _homes(task, own, cards)
        for card in cards:
            if card in here or (card.folder and any(_holds(card, folder) for folder in others)):
                needed[card.name].append(task.name)
    return needed


def lies_on_disk(task: TaskCard) -> bool:
    """Whether a task's data set says that it needs files (a plug-in need not say)."""
    return bool(getattr(discovery.declared("datasets", task.dataset), "NEEDS_ON_DISK", ""))


def _holds(card: DataCard, folder: str) -> bool:
    """Whether a folder under the data root is the card's or lies in it."""
    return PurePosixPath(folder).is_relative_to(card.folder) if card.folder else not folder


def _folders(task: TaskCard) -> tuple[str, tuple[str, ...]]:
    """The folder that a task's reader has as its own, and the other options that may name one, as they are written."""
    module = discovery.declared("datasets", task.dataset)
    if not lies_on_disk(task):
        return "", ()
    options = parse(module.Options, task.data, f"Task {task.name}, table [data]").model_dump()
    own = str(options.pop("folder", ""))
    return own, tuple(value for value in options.values() if isinstance(value, str) and value)
