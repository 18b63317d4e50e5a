"""The presence of a data set under the data root: its present and absent parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sparc_bench.catalogue.data_card import DataCard


@dataclass(frozen=True)
class Presence:
    """The present and absent files and folders of a card.

    Attributes:
        home: folder of the data set; None without a data root and for built-in data.
        there: names of the present parts, as in the card.
        absent: names of the absent parts.
        status: yes, no, partly (k of n), unknown, or built in.
    """

    home: Path | None
    there: tuple[str, ...]
    absent: tuple[str, ...]
    status: str


def presence(card: DataCard, root: Path | None) -> Presence:
    """The presence of a card's parts under the data root."""
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
