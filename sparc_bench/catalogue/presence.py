"""How much of a data set lies under the data root."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparc_bench.catalogue.card import DataCard


@dataclass(frozen=True)
class Presence:
    """The files and folders of a card that are there.

    Attributes:
        home: the folder itself; None without a data root or where nothing lies on disk.
        there: the parts that exist, as the card names them.
        absent: those that do not.
        word: yes, no, partly (and how much), unknown, or built in.
    """

    home: Path | None
    there: tuple[str, ...]
    absent: tuple[str, ...]
    word: str


def presence(card: DataCard, root: Path | None) -> Presence:
    """Look for the parts of a card under the data root."""
    if not card.folder:
        return Presence(None, (), (), "built in")
    if root is None:
        return Presence(None, (), card.parts, "unknown")
    home = root / card.folder
    if card.instead and not home.is_dir() and (root / card.instead).is_dir():
        return Presence(root / card.instead, (), (), "yes")
    there = tuple(path for path in card.files if (home / path).is_file())
    there += tuple(path for path in card.folders if _is_filled(home / path))
    absent = tuple(path for path in card.parts if path not in there)
    return Presence(home, there, absent, _word(there, card.parts) if home.is_dir() else "no")


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _word(there: Sequence[str], parts: Sequence[str]) -> str:
    if len(there) == len(parts):
        return "yes"
    return f"partly ({len(there)} of {len(parts)})" if there else "no"
