"""Labelled photos in tar files, in the layout of the data sets clip-benchmark/wds_* on the Hugging Face hub.

Photos are read from the tar files on demand, by their byte offset, without unpacking. A photo's content is known by the
hash of its tar file and its place there: a tar file is hashed once, and writing it anew makes all of its photos new.
"""

from __future__ import annotations

import io
import re
import tarfile
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import Field

from sparc_bench.cards.card import Strict
from sparc_bench.cards.prompts import class_list
from sparc_bench.dataset import Computed, Examples, LazyExamples
from sparc_bench.errors import UnreadableImageError, UserError
from sparc_bench.files.annotations import DataFolder, known_split, ordered_fingerprint, repeated, some
from sparc_bench.files.compact_strings import CompactStrings
from sparc_bench.files.file_hashes import UNREADABLE, file_hashes
from sparc_bench.images.item import ImageItem, decoded_image

TITLE = "webdataset: labelled photos in tar files, the layout of clip-benchmark/wds_* (VTAB and others)"
SOURCE = "LAION-AI/CLIP_benchmark, whose code wrote them; the task card names the data set"
NEEDS_ON_DISK = (
    "wds_NAME/ with SPLIT/nshards.txt, SPLIT/0.tar, SPLIT/1.tar ... (KEY.jpg, .png or .webp beside KEY.cls) and "
    "classnames.txt"
)
PROVIDES = frozenset({"labels", "splits"})
SPLITS = {"train": "train", "test": "test", "train+test": "test"}

_PHOTOS = ("jpg", "jpeg", "png", "webp")
_NUMBER = re.compile(r"[0-9]{1,9}")


class Options(Strict):
    """Folder of the shards and meaning of their class numbers."""

    folder: str = Field(default="wds_cifar10", description="folder of the data set, under the data root")
    classes: str = Field(
        default="names",
        description="names: the lines of classnames.txt; else a class list in the order of the numbers",
    )


@dataclass(frozen=True)
class _Place:
    """Byte offset and size of a file within a tar file."""

    offset: int
    size: int


def read(root: Path | None, split: str, options: Options) -> Examples:
    """The photos in the order of the tar files; an id is SHARD/KEY (in `train+test` SPLIT/SHARD/KEY).

    Raises:
        UserError: a file is missing or malformed.
    """
    known_split(split, SPLITS, "webdataset_folder")
    home = DataFolder.find(root, options.folder, NEEDS_ON_DISK)
    classes = _classes(home, options.classes)
    parts = split.split("+")
    photos = _Photos(parts)
    for part in parts:
        shards = [f"{part}/{shard}.tar" for shard in range(_shards(home, part))]
        hashes = file_hashes(home.path, shards)
        for shard, name in enumerate(shards):
            prefix = f"{shard}/" if len(parts) == 1 else f"{part}/{shard}/"
            path = home.path / name
            photos.add(_Shard(part, path, hashes.get(name, UNREADABLE)), prefix, _members(path, len(classes)))
    labels = ",".join(map(str, photos.labels))
    return Examples(
        dataset="webdataset_folder",
        split=split,
        examples=photos.examples(),
        classes=classes,
        fingerprint=ordered_fingerprint(["\n".join(classes).encode(), labels.encode()], photos.contents()),
        sizes={part: photos.count(part) for part in parts if len(parts) > 1},
    )


@dataclass(frozen=True)
class _Shard:
    """A tar file: its part of the data set, where it lies and the hash of its content."""

    part: str
    path: Path
    content: str


class _Photos:
    """The photos of all tar files, in about sixty bytes each."""

    def __init__(self, parts: Sequence[str]) -> None:
        self.labels = array("i")
        self._parts = parts
        self._shards: list[_Shard] = []
        self._ids = CompactStrings()
        self._shard, self._offset, self._size = array("i"), array("q"), array("q")

    def add(self, shard: _Shard, prefix: str, members: Mapping[str, tuple[int, _Place]]) -> None:
        """Add the photos of a tar file; their ids begin with the prefix."""
        self._ids.extend(f"{prefix}{key}" for key in members)
        for label, place in members.values():
            self.labels.append(label)
            self._offset.append(place.offset)
            self._size.append(place.size)
        self._shard.extend([len(self._shards)] * len(members))
        self._shards.append(shard)

    def examples(self) -> LazyExamples:
        columns: dict[str, Sequence[Any]] = {"id": self._ids, "label": self.labels}
        if len(self._parts) > 1:
            columns["tags"] = Computed(len(self._ids), self._tag)
        return LazyExamples.of(columns, self._image)

    def contents(self) -> Iterator[tuple[str, str]]:
        """Id and content of every photo, sorted by id."""
        return ((self._ids[at], self._content(at)) for at in sorted(range(len(self._ids)), key=self._ids.__getitem__))

    def count(self, part: str) -> int:
        """Number of the photos of a part."""
        return sum(self._shard.count(shard) for shard, of in enumerate(self._shards) if of.part == part)

    def _content(self, at: int) -> str:
        return f"{self._shards[self._shard[at]].content} {self._offset[at]} {self._size[at]}"

    def _image(self, at: int) -> ImageItem:
        place = _Place(self._offset[at], self._size[at])
        opener = partial(_opened, self._shards[self._shard[at]].path, place)
        return ImageItem(self._ids[at], opener, content=self._content(at))

    def _tag(self, at: int) -> Mapping[str, str]:
        return {"split": self._shards[self._shard[at]].part}


def _classes(home: DataFolder, classes: str) -> tuple[str, ...]:
    if classes != "names":
        return tuple(class_list(classes))
    names = [line.strip() for line in home.text("classnames.txt").splitlines() if line.strip()]
    twice = repeated(names)
    if twice:
        raise UserError(
            f"{home.path / 'classnames.txt'} has {some(twice)} more than once: set the reader's option classes to a "
            "class list that tells them apart."
        )
    return tuple(names)


def _shards(home: DataFolder, part: str) -> int:
    text = home.text(f"{part}/nshards.txt").strip()
    if not _NUMBER.fullmatch(text) or not int(text):
        raise UserError(f"{home.path / part / 'nshards.txt'} holds {text[:20]!r}: write the number of tar files in it.")
    return int(text)


def _members(path: Path, classes: int) -> dict[str, tuple[int, _Place]]:
    """Key -> label and place of the photo, in the order of the tar file."""
    labels: dict[str, int] = {}
    places: dict[str, _Place] = {}
    try:
        with tarfile.open(path, "r:") as file:
            for member in file:
                key, _, ending = member.name.removeprefix("./").rpartition(".")
                if not member.isfile() or not key:
                    continue
                if ending.lower() in _PHOTOS:
                    if key in places:
                        raise UserError(f"{path} has two photos named {key}: write it again with names of their own.")
                    places[key] = _Place(member.offset_data, member.size)
                elif ending == "cls":
                    content = file.extractfile(member)
                    labels[key] = _label(content.read() if content else b"", f"{key}.cls in {path}", classes)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist: the data set needs {NEEDS_ON_DISK}.") from None
    except (OSError, tarfile.TarError) as error:
        raise UserError(f"{path} is no tar file that can be read ({error}): copy it again.") from None
    odd = sorted(labels.keys() ^ places.keys())
    if odd or not places:
        raise UserError(
            f"{path} has {len(odd)} keys without a photo or a label ({some(odd)}): each needs KEY.jpg (or .png, .webp) "
            "and KEY.cls."
            if odd
            else f"{path} holds no photos: the data set needs {NEEDS_ON_DISK}."
        )
    return {key: (labels[key], place) for key, place in places.items()}


def _label(content: bytes, where: str, classes: int) -> int:
    text = content.decode("ascii", "replace").strip()
    if not _NUMBER.fullmatch(text) or int(text) >= classes:
        raise UserError(f"{where} holds {text[:20]!r}: it needs the number of one of {classes} classes, from 0.")
    return int(text)


def _opened(path: Path, place: _Place) -> Image.Image:
    try:
        with path.open("rb") as file:
            file.seek(place.offset)
            content = file.read(place.size)
    except OSError as error:
        raise UnreadableImageError(f"{path} cannot be read ({error}): check --data-root.") from error
    return decoded_image(io.BytesIO(content), f"The photo at byte {place.offset} of {path}")
