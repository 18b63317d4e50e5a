"""The card of a data set, `tasks/data/NAME.toml`, and the lookup of the card that a task reads from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Self

from pydantic import Field, model_validator

from sparc_bench.cards import discovery
from sparc_bench.cards.bounds import Count
from sparc_bench.cards.card import Strict, parse, read_toml
from sparc_bench.cards.name import Name
from sparc_bench.cards.task_card import TaskCard
from sparc_bench.errors import UserError, nearest

Counts = dict[str, Count]
"""Name -> count, as in `Examples.counts` and in [expect] of a task card."""


class DataCard(Strict):
    """One data set: its folder under the data root, how to obtain it, its files and published counts."""

    name: Name
    title: str
    folder: str = Field(description="folder under the data root; empty for built-in data")
    instead: str = Field(
        default="", description="folder with the same data in another form, which the readers accept too"
    )
    readers: tuple[str, ...] = Field(description="modules of sparc_bench/datasets that read this folder")
    part_of: str = Field(default="", description="card of the published data set that this data set is a part of")
    classes_from: str = Field(
        default="",
        description="source of photos (`imagenet`, as photo lists name it) whose classes these are, where no class "
        "list says so: a model that was trained on any of its photos is not zero-shot here",
    )
    photos_from: str = Field(
        default="", description="photo list (DATASET:SPLIT) that holds all photos, where their names do not show it"
    )
    photos_in: tuple[str, ...] = Field(
        default=(), description="cards of the folders with its photos, where these lie elsewhere"
    )
    licence: str
    size: str = Field(description="size on disk of photos and annotations; with 'about' where it is not measured")
    home: str = Field(description="page or repository of the owners")
    obtain: str = Field(description="what to download there and where to put it")
    layout: str = Field(default="", description="the folder as a tree")
    files: dict[str, str] = Field(
        default={}, description="annotation file in the folder -> its sha256, empty where no public one is known"
    )
    folders: tuple[str, ...] = Field(default=(), description="folders of photos in the folder")
    splits: dict[str, Counts] = Field(default={}, description="published split -> its counts")
    source: str = Field(description="source of counts, sizes and checksums, or how they were computed")
    notes: str = Field(default="", description="remarks for the comparison of numbers on this data set")

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
        """All parts of the folder: annotation files, then folders of photos."""
        return (*self.files, *self.folders)


def _leaves(path: str) -> bool:
    return "\\" in path or path.startswith(("/", "~")) or ".." in PurePosixPath(path).parts


def folder() -> Path:
    """The folder of all data cards."""
    return discovery.cards_folder("tasks") / "data"


def names() -> list[str]:
    """Names of all data cards, sorted."""
    return sorted(path.stem for path in folder().glob("*.toml"))


def read_card(path: Path) -> DataCard:
    """The data card in a file."""
    return parse(DataCard, {"name": path.stem, **read_toml(path)}, str(path))


def load(name: str) -> DataCard:
    """The data card with a name; raises UserError with the nearest name."""
    if name not in names():
        raise UserError(f"There is no data set '{name}': {nearest(name, names(), 'sparc-bench data list')}")
    return read_card(folder() / f"{name}.toml")


def load_all() -> list[DataCard]:
    """All data cards, sorted by name."""
    return [read_card(folder() / f"{name}.toml") for name in names()]


def cards_of_task(task: TaskCard, cards: Sequence[DataCard]) -> list[DataCard]:
    """The cards of the folder that a task reads from; exactly one in a complete catalogue.

    For a folder within a folder (`imagenet1k/val`), the card of the innermost folder with a card.
    """
    return _cards_of_folder(task, _folders(task)[0], cards)


def _cards_of_folder(task: TaskCard, folder: str, cards: Sequence[DataCard]) -> list[DataCard]:
    found = [card for card in cards if task.dataset in card.readers and _holds(card, folder)]
    innermost = max((len(card.folder) for card in found), default=0)
    return [card for card in found if len(card.folder) == innermost]


def tasks_by_card(tasks: Sequence[TaskCard], cards: Sequence[DataCard]) -> dict[str, list[str]]:
    """Name of a card -> names of the tasks that read annotations or photos from its folder."""
    needed: dict[str, list[str]] = {card.name: [] for card in cards}
    for task in tasks:
        own, others = _folders(task)
        here = _cards_of_folder(task, own, cards)
        for card in cards:
            if card in here or (card.folder and any(_holds(card, folder) for folder in others)):
                needed[card.name].append(task.name)
    return needed


def lies_on_disk(task: TaskCard) -> bool:
    """Whether a task's data set declares files on disk (NEEDS_ON_DISK, optional for a plug-in)."""
    return bool(discovery.needs_on_disk(task.dataset))


def _holds(card: DataCard, folder: str) -> bool:
    """Whether a folder under the data root is the card's folder or lies in it."""
    return PurePosixPath(folder).is_relative_to(card.folder) if card.folder else not folder


def _folders(task: TaskCard) -> tuple[str, tuple[str, ...]]:
    """The option `folder` of a task's reader, and its other text options, any of which may name a folder."""
    module = discovery.declared("datasets", task.dataset)
    if not lies_on_disk(task):
        return "", ()
    options = parse(module.Options, task.data, f"Task {task.name}, table [data]").model_dump()
    own = str(options.pop("folder", ""))
    return own, tuple(value for value in options.values() if isinstance(value, str) and value)
