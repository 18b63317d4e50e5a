"""Photos in one folder per class, as torchvision's ImageFolder reads them.

Photos are used as decoded, without applying their EXIF orientation, as is usual in the field.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sparc_bench.cards.bounds import Number
from sparc_bench.cards.card import Strict
from sparc_bench.cards.prompts import class_list
from sparc_bench.dataset import Computed, Examples, LazyExamples
from sparc_bench.errors import UserError
from sparc_bench.files.annotations import DataFolder, known_split, ordered_fingerprint, some
from sparc_bench.files.compact_strings import CompactStrings
from sparc_bench.files.file_hashes import FileHashes, hashes_of
from sparc_bench.images.item import ImageItem

TITLE = "image folder: photos in one folder per class (ImageNet and its kin, CIFAR as PNG, any ImageFolder)"
SOURCE = "the owner of the folders; the task card names the data set"
NEEDS_ON_DISK = "FOLDER/CLASS/*.jpg (or .png and the like, also deeper), one folder per class"
PROVIDES = frozenset({"labels", "splits"})
SPLITS = {
    "train": "train",
    "val": "val",
    "validation": "val",
    "test": "test",
    "all": "test",
    "train+val": "val",
    "train+test": "test",
}

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Suffixes of photos, as in torchvision.datasets.folder; files with others are left out, with a note."""


class Options(Strict):
    """Folders of the classes, and which classes they are."""

    folder: str = Field(
        default="image_folder",
        description="folder of the class folders, under the data root; {split} stands for the split's name",
    )
    classes: str = Field(
        default="folders",
        description="folders: the folders' names, sorted; else a class list in the order of the labels (imagenet, "
        "imagenet_a, imagenet_r or a card of tasks/classes)",
    )
    named: Literal["by class", "by number"] = Field(
        default="by class", description="names of the folders: by class, or by number (0, 1, 2 ... in class order)"
    )
    photo_names: str = Field(
        default="", description="name of the photos' source, for exposure; a photo is named NAME:FILE without ending"
    )
    train_per_class: Number | None = Field(
        default=None,
        description="number of photos of each class tagged train, those whose paths have the lowest sha256 (names are "
        "often sorted by kind); the others are tagged test",
    )


def read(root: Path | None, split: str, options: Options) -> Examples:
    """The photos class by class, sorted by name within a class; an id is the path under the folder.

    A split of two parts (`train+test`) reads both folders: ids begin with the part's name, and the tag `split` is
    "train" for photos of the first part and "test" for those of the second, whatever its name.

    Raises:
        UserError: a folder, a class or its photos are missing, or a folder belongs to no class.
    """
    known_split(split, SPLITS, "image_folder")
    parts = split.split("+") if options.train_per_class is None else [split]
    if len(parts) > 1 and "{split}" not in options.folder:
        raise UserError(
            f"The split '{split}' is two folders and the reader's option folder = '{options.folder}' names one: put "
            "{split} where their names differ, or set train_per_class."
        )
    photos = _Photos(parts, options)
    others: Counter[str] = Counter()
    for part in parts:
        home = DataFolder.find(root, options.folder.replace("{split}", part), NEEDS_ON_DISK)
        folders = class_folders(home.path, options.classes, options.named)
        if photos.classes and tuple(folders) != photos.classes:
            odd = sorted({*folders} ^ {*photos.classes})
            raise UserError(f"{home.path} has other classes than its '{parts[0]}' ({some(odd)}): complete both.")
        photos.add(part, home.path, folders, others)
    return Examples(
        dataset="image_folder",
        split=split,
        examples=photos.examples(),
        classes=photos.classes,
        fingerprint=ordered_fingerprint([], photos.contents()),
        sizes=photos.sizes(),
        notes=left_out(others),
    )


_TAGS: tuple[Mapping[str, str], ...] = ({}, {"split": "train"}, {"split": "test"})
_NO_TAG, _TRAIN, _TEST = range(3)


class _Photos:
    """The photos of one or two folders of class folders, in about a hundred bytes each."""

    def __init__(self, parts: Sequence[str], options: Options) -> None:
        self.classes: tuple[str, ...] = ()
        self._parts = parts
        self._options = options
        self._homes: list[Path] = []
        self._ids = CompactStrings()
        self._labels, self._tags = array("i"), bytearray()
        self._hashes: list[FileHashes] = []
        self._blocks: list[tuple[str, int, int]] = []
        """Folder of a class within the ids, and the positions of its photos: from, to."""

    def add(self, part: str, home: Path, folders: Mapping[str, Path], others: Counter[str]) -> None:
        """Find the photos of a part; raises UserError for a class without photos."""
        self.classes = tuple(folders)
        alone = len(self._parts) == 1
        paths = self._ids if alone else CompactStrings()
        for label, (name, folder) in enumerate(folders.items()):
            names = photo_names(folder, others)
            if not names:
                raise UserError(f"{folder} has no photo of the class '{name}': it needs {NEEDS_ON_DISK}.")
            of_class = [f"{folder.name}/{photo}" for photo in names]
            prefix = f"{folder.name}/" if alone else f"{part}/{folder.name}/"
            self._blocks.append((prefix, len(self._ids), len(self._ids) + len(names)))
            self._labels.extend([label] * len(names))
            self._tags += self._tags_of(part, of_class)
            paths.extend(of_class)
            if not alone:
                self._ids.extend(f"{part}/{path}" for path in of_class)
        self._homes.append(home)
        self._hashes.append(photo_hashes(home, paths))

    def _tags_of(self, part: str, paths: Sequence[str]) -> bytes:
        train_per_class = self._options.train_per_class
        if train_per_class is None:
            tag = _NO_TAG if len(self._parts) == 1 else _TRAIN if part == self._parts[0] else _TEST
            return bytes([tag]) * len(paths)
        drawn = {*sorted(paths, key=lambda path: hashlib.sha256(path.encode()).digest())[:train_per_class]}
        return bytes(_TRAIN if path in drawn else _TEST for path in paths)

    def examples(self) -> LazyExamples:
        columns: dict[str, Sequence[Any]] = {
            "id": self._ids,
            "label": self._labels,
            "tags": Computed(len(self._ids), self._tag),
        }
        if self._options.photo_names:
            columns["photo"] = Computed(len(self._ids), self._photo)
        return LazyExamples.of(columns, self._image)

    def contents(self) -> Iterator[tuple[str, str]]:
        """Id and hash of every photo, sorted by id: a class's photos are, and no two classes' can be mixed."""
        for _, start, end in sorted(self._blocks):
            yield from ((self._ids[at], self._hash(at)) for at in range(start, end))

    def sizes(self) -> dict[str, int]:
        """Number of the photos with each tag."""
        return (
            {} if self._tags[0] == _NO_TAG else {_TAGS[tag]["split"]: self._tags.count(tag) for tag in (_TRAIN, _TEST)}
        )

    def _place(self, at: int) -> tuple[int, int]:
        """Number of a photo's part, and its position there."""
        first = len(self._hashes[0])
        return (0, at) if at < first else (1, at - first)

    def _hash(self, at: int) -> str:
        part, place = self._place(at)
        return self._hashes[part][place]

    def _image(self, at: int) -> ImageItem:
        photo_id, part = self._ids[at], self._place(at)[0]
        path = photo_id if len(self._parts) == 1 else photo_id.removeprefix(f"{self._parts[part]}/")
        return ImageItem.file(photo_id, self._homes[part] / path, content=self._hash(at))

    def _tag(self, at: int) -> Mapping[str, str]:
        return _TAGS[self._tags[at]]

    def _photo(self, at: int) -> str:
        return f"{self._options.photo_names}:{Path(self._ids[at]).stem}"


def class_folders(home: Path, classes: str, named: str) -> dict[str, Path]:
    """Class -> its folder, in the order of the labels.

    Raises:
        UserError: there are no folders, a class has no folder, a folder has no class, or its name is no number.
    """
    there = {entry.name: Path(entry) for entry in home.iterdir() if entry.is_dir() and not entry.name.startswith(".")}
    if not there:
        raise UserError(f"{home} has no folders: put {NEEDS_ON_DISK} there.")
    if named == "by number":
        odd = sorted(name for name in there if not name.isascii() or not name.isdigit())
        if odd:
            raise UserError(f"{home} has folders that are no numbers ({some(odd)}): move them away.")
    if classes == "folders":
        names = sorted(there, key=int) if named == "by number" else sorted(there)
        return {name: there[name] for name in names}
    listed = list(class_list(classes))
    folder_of = {name: str(place) if named == "by number" else name for place, name in enumerate(listed)}
    missing = [folder for folder in folder_of.values() if folder not in there]
    if missing:
        raise UserError(
            f"{home} lacks {len(missing)} of the {len(listed)} class folders of '{classes}' ({some(missing)}): "
            "complete it, or name another class list."
        )
    odd = sorted(there.keys() - set(folder_of.values()))
    if odd:
        raise UserError(
            f"{home} has {len(odd)} folders of no class of '{classes}' ({some(odd)}): move them away, or name another "
            "class list."
        )
    return {name: there[folder] for name, folder in folder_of.items()}


def photo_names(folder: Path, others: Counter[str]) -> list[str]:
    """Path in the folder of every photo of a class, sorted; links are followed.

    The endings of files that are no photos are counted in `others`.
    """
    return sorted(_photos(str(folder), "", others))


def photo_hashes(home: Path, names: Sequence[str]) -> FileHashes:
    """Hash of each photo, in the order of the names; raises UserError for one that is a link to nothing."""
    found = hashes_of(home, names)
    gone = found.first_gone
    if gone is not None:
        raise UserError(f"{home / names[gone]} cannot be read (it is a link to nothing): mend it.")
    return found


def left_out(others: Counter[str]) -> tuple[str, ...]:
    """A note about files whose endings are no photo's; none where there are none.

    >>> left_out(Counter({".gif": 2, ".jfif": 1}))
    ("Files whose endings are no photo's are left out: .gif (2), .jfif (1).",)
    """
    if not others:
        return ()
    listed = some([f"{ending or 'no ending'} ({count})" for ending, count in others.most_common()], 5)
    return (f"Files whose endings are no photo's are left out: {listed}.",)


def _photos(folder: str, prefix: str, others: Counter[str]) -> Iterator[str]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    yield from _photos(entry.path, f"{prefix}{entry.name}/", others)
                elif entry.name.lower().endswith(EXTENSIONS):
                    yield f"{prefix}{entry.name}"
                else:
                    others[Path(entry.name).suffix.lower()] += 1
    except OSError as error:
        raise UserError(f"{error.filename or folder} cannot be read ({error.strerror}): mend it.") from None
