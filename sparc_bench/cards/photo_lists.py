"""Which photos are in a published split: `reference_models/photo_lists/DATASET/SPLIT.toml`, for exposure.

A photo has the name that all data sets share which hold it: `coco:139`, `flickr:1000268201`. What stands before the
colon is its source: where the name comes from, not the web site (COCO's photos lay on Flickr too, under names that its
files do not carry: Flickr8k and COCO share no name and are not compared).
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from sparc_bench.cards import discovery
from sparc_bench.cards.card import Strict, parse, read_toml
from sparc_bench.errors import UserError, nearest


class PhotoList(Strict):
    """One list: photos that it names, other lists that it holds or lacks, and what is known of all the rest."""

    photos: str = Field(
        description="source of its photos, as their names begin: coco, flickr, imagenet; empty: none is a photo"
    )
    source: str = Field(description="whose split it is, and where the list is from")
    ids: str = Field(default="", description="names of its photos without the source, with white space between them")
    names: str = Field(default="", description="pattern of such names, where they tell the split (ILSVRC2012_val_...)")
    holds: tuple[str, ...] = Field(default=(), description="lists (DATASET:SPLIT) that are wholly in it")
    lacks: tuple[str, ...] = Field(default=(), description="lists of which no photo is in it")
    rest: Literal["in", "out", "unknown"] = Field(
        default="out", description="whether other photos of the source are in it; unknown: its ids are not public here"
    )

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if not re.fullmatch(r"[a-z0-9_]*", self.photos):
            raise ValueError(f"photos = '{self.photos}' is no source: write what photo names begin with, such as coco")
        if ":" in self.ids:
            raise ValueError(f"ids are written without their source: take every '{self.photos}:' out")
        try:
            re.compile(self.names)
        except re.error as error:
            raise ValueError(f"names is no pattern ({error}): mend it") from None
        return self


class KnownPhotos:
    """A list that can be asked.

    Attributes:
        source: what the names of its photos begin with; empty where it holds no photo.
        ids: the photos that it names itself, not those of lists that it holds.
    """

    def __init__(self, card: PhotoList) -> None:
        self.source = card.photos
        self.ids = frozenset(f"{card.photos}:{name}" for name in card.ids.split())
        self._names = re.compile(f"{card.photos}:(?:{card.names})") if card.names else None
        self._holds = [named(entry) for entry in card.holds]
        self._lacks = [named(entry) for entry in card.lacks]
        self._rest = {"in": True, "out": False, "unknown": None}[card.rest]

    def has(self, photo: str) -> bool | None:
        """Whether a photo is in the list; None where nobody here knows."""
        if not photo.startswith(f"{self.source}:"):
            return False
        if photo in self.ids or (self._names is not None and self._names.fullmatch(photo)):
            return True
        held = [other.has(photo) for other in self._holds]
        if True in held:
            return True
        if any(other.has(photo) for other in self._lacks):
            return False
        return None if None in held else self._rest


def folder() -> Path:
    """Where the lists lie."""
    return discovery.cards_folder("reference_models") / "photo_lists"


def find(entry: str) -> KnownPhotos | None:
    """The list of DATASET:SPLIT; None where there is none."""
    if not re.fullmatch(r"\w+:\w+", entry):
        return None
    path = folder() / f"{entry.replace(':', '/')}.toml"
    return _read(path) if path.is_file() else None


def named(entry: str) -> KnownPhotos:
    """The list of DATASET:SPLIT; raises UserError with the nearest where there is none."""
    found = find(entry)
    if found is None:
        known = [f"{path.parent.name}:{path.stem}" for path in folder().glob("*/*.toml")]
        raise UserError(f"There is no photo list {entry}: {nearest(entry, known, f'ls {folder()}/*')}")
    return found


def of_file(path: Path) -> KnownPhotos:
    """A user's own list.

    Raises:
        UserError: no such file, or no list.
    """
    if not path.is_file():
        raise UserError(f"The photo list {path} of trained_on does not exist: mend the path, which begins at the card.")
    return _read(path)


@cache
def _read(path: Path) -> KnownPhotos:
    return KnownPhotos(parse(PhotoList, read_toml(path), str(path)))
