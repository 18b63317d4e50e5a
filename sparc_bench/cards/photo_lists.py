"""Photo lists: the photos of a published split, `reference_models/photo_lists/DATASET/SPLIT.toml`, for exposure.

A photo's name is shared by all data sets that contain it: `coco:139`, `flickr:1000268201`. The part before the colon is
its source, the origin of the name and not the web site: COCO's photos come from Flickr too, but its files do not carry
Flickr's names, so that Flickr8k and COCO share no name and are not compared.
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
    """Photo list of a file: listed photos, other lists inside or outside it, and a rule for all other photos."""

    photos: str = Field(
        description="source of the photos, with which names begin: coco, flickr, imagenet; empty: no photos (rendered)"
    )
    source: str = Field(description="owner of the split and origin of the list")
    ids: str = Field(default="", description="names of the photos without the source, separated by white space")
    names: str = Field(
        default="", description="regular expression of the photos' names, if they show the split (ILSVRC2012_val_...)"
    )
    holds: tuple[str, ...] = Field(default=(), description="lists (DATASET:SPLIT) of which every photo is in this one")
    lacks: tuple[str, ...] = Field(default=(), description="lists of which no photo is in this one")
    rest: Literal["in", "out", "unknown"] = Field(
        default="out", description="whether other photos of the source are in it; unknown: the ids are not public"
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


class PhotoSet:
    """Photo list with membership test.

    Attributes:
        source: beginning of the photos' names; empty for a list without photos.
        ids: photos that the list names itself, without those of the lists in it.
    """

    def __init__(self, card: PhotoList) -> None:
        self.source = card.photos
        self.ids = frozenset(f"{card.photos}:{name}" for name in card.ids.split())
        self._names = re.compile(f"{card.photos}:(?:{card.names})") if card.names else None
        self._holds = [by_name(entry) for entry in card.holds]
        self._lacks = [by_name(entry) for entry in card.lacks]
        self._rest = {"in": True, "out": False, "unknown": None}[card.rest]

    def has(self, photo: str) -> bool | None:
        """Whether a photo is in the list; None if unknown."""
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
    """Folder of the photo lists."""
    return discovery.cards_folder("reference_models") / "photo_lists"


def find(entry: str) -> PhotoSet | None:
    """Photo list of DATASET:SPLIT, or None."""
    if not re.fullmatch(r"\w+:\w+", entry):
        return None
    path = folder() / f"{entry.replace(':', '/')}.toml"
    return _read(path) if path.is_file() else None


def sources_of(entry: str) -> set[str]:
    """Sources of an entry DATASET:SPLIT: of its photo list, else of the lists of its data set's other splits."""
    known = find(entry)
    if known is not None:
        return {known.source} - {""}
    dataset = entry.partition(":")[0]
    if not re.fullmatch(r"\w+", dataset):
        return set()
    return {_read(path).source for path in (folder() / dataset).glob("*.toml")} - {""}


def refuse_unknown_source(source: str, where: str) -> None:
    """Raise UserError for a source that no photo list has."""
    known = {_read(path).source for path in folder().glob("*/*.toml")} - {""}
    if source not in known:
        hint = nearest(source, known, f"ls {folder()}/*")
        raise UserError(f"{where}: no photo list is of the source '{source}': {hint}")


def by_name(entry: str) -> PhotoSet:
    """Photo list of DATASET:SPLIT; raises UserError with the nearest name for an unknown one."""
    found = find(entry)
    if found is None:
        known = [f"{path.parent.name}:{path.stem}" for path in folder().glob("*/*.toml")]
        raise UserError(f"There is no photo list {entry}: {nearest(entry, known, f'ls {folder()}/*')}")
    return found


def from_file(path: Path) -> PhotoSet:
    """Photo list of a user's file.

    Raises:
        UserError: no such file, or not a photo list.
    """
    if not path.is_file():
        raise UserError(f"The photo list {path} of trained_on does not exist: mend the path, which begins at the card.")
    return _read(path)


@cache
def _read(path: Path) -> PhotoSet:
    return PhotoSet(parse(PhotoList, read_toml(path), str(path)))
