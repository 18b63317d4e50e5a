"""The list of `sparc-bench data list`: each data set, its presence on disk, and how to obtain it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sparc_bench.cards import discovery
from sparc_bench.catalogue.count_diagnosis import in_words
from sparc_bench.catalogue.data_card import DataCard, load_all, tasks_by_card
from sparc_bench.catalogue.presence import presence


def render_list(root: Path | None) -> Group:
    """The list of all data sets for the terminal; presence is "unknown" without a data root."""
    cards = load_all()
    needed = tasks_by_card([discovery.task(name) for name in discovery.names("tasks")], cards)
    width = max(len(card.name) for card in cards)
    parts: list[RenderableType] = []
    for card in cards:
        heading = Text.assemble((f"{card.name:{width}}", "bold"), f"  {presence(card, root).status}")
        parts += [heading, Padding(_grid(_facts(card, needed[card.name])), (0, 0, 1, 2))]
    return Group(*parts)


def _grid(facts: Sequence[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(style="cyan", no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in facts:
        grid.add_row(key, value)
    return grid


def _facts(card: DataCard, tasks: Sequence[str]) -> list[tuple[str, str]]:
    needed = f"{len(tasks)}: {', '.join(tasks)}" if tasks else "none yet: it is there for task cards of your own"
    of = f" (a part of {card.part_of})" if card.part_of else ""
    photos = f"; photos in {', '.join(card.photos_in)}" if card.photos_in else ""
    return [
        ("size", f"{card.size}{of}"),
        ("licence", card.licence),
        ("tasks", needed),
        ("from", card.home),
        *([("layout", f"{card.folder}/ with {', '.join(_shortened(card))}{photos}")] if card.folder else []),
    ]


def _shortened(card: DataCard) -> list[str]:
    """The parts of the folder, in short: many files or folders are replaced by their number."""
    by_folder: dict[str, list[str]] = {}
    for path in card.files:
        by_folder.setdefault(path.rpartition("/")[0], []).append(path)
    words = []
    for folder, files in by_folder.items():
        words += files if len(files) <= 4 or not folder else [f"{folder}/ ({len(files)} files)"]
    folders = [folder for folder in card.folders if folder != "."]
    words += [f"{folder}/" for folder in folders] if len(folders) <= 6 else [f"{len(folders)} folders"]
    return words or ["one folder for each class"]


def render_details(card: DataCard) -> RenderableType:
    """The details of one data set for the terminal: source, how to obtain it, counts, layout."""
    needed = tasks_by_card([discovery.task(name) for name in discovery.names("tasks")], load_all())
    facts = [fact for fact in _facts(card, needed[card.name]) if fact[0] != "layout"]
    facts += [(key, value) for key, value in (("how", card.obtain), ("note", card.notes)) if value]
    facts += [("source", card.source), *((f"split {split}", in_words(known)) for split, known in card.splits.items())]
    tree = [Text("\nlayout under the data root", style="bold"), Text(card.layout.strip("\n"))] if card.layout else []
    return Group(Text.assemble((card.name, "bold"), f": {card.title}"), _grid(facts), *tree)
