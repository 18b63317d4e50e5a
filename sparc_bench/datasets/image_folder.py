"""Photos in one folder per class, as torchvision's ImageFolder reads them.

Photos are used as decoded, without applying their EXIF orientation, as is usual in the field.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from sparc_bench.cards.bounds import Number
from sparc_bench.cards.card import Strict
from sparc_bench.cards.prompts import class_list
from sparc_bench.dataset import DataSplit, Example
from sparc_bench.errors import UserError
from sparc_bench.files.annotations import DataFolder, fingerprint, known_split, some
from sparc_bench.files.file_hashes import file_hashes
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


def read(root: Path | None, split: str, options: Options) -> DataSplit:
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
    contents: dict[str, str] = {}
    others: Counter[str] = Counter()
    examples: list[Example] = []
    classes: tuple[str, ...] = ()
    for part in parts:
        home = DataFolder.find(root, options.folder.replace("{split}", part), NEEDS_ON_DISK)
        folders = class_folders(home.path, options.classes, options.named)
        if classes and tuple(folders) != classes:
            odd = sorted({*folders} ^ {*classes})
            raise UserError(f"{home.path} has other classes than its '{parts[0]}' ({some(odd)}): complete both.")
        classes = tuple(folders)
        photos_of = {name: photo_names(folder, others) for name, folder in folders.items()}
        paths = [f"{folders[name].name}/{photo}" for name, photos in photos_of.items() for photo in photos]
        hashes = photo_hashes(home.path, paths)
        for label, (name, folder) in enumerate(folders.items()):
            photos = photos_of[name]
            if not photos:
                raise UserError(f"{folder} has no photo of the class '{name}': it needs {NEEDS_ON_DISK}.")
            drawn = sorted(photos, key=lambda photo: hashlib.sha256(f"{folder.name}/{photo}".encode()).digest())
            place_of = {photo: place for place, photo in enumerate(drawn)}
            for photo in photos:
                path = f"{folder.name}/{photo}"
                photo_id = path if len(parts) == 1 else f"{part}/{path}"
                contents[photo_id] = hashes[path]
                examples.append(
                    Example(
                        id=photo_id,
                        image=ImageItem.file(photo_id, home.path / path, content=hashes[path]),
                        label=label,
                        photo=f"{options.photo_names}:{Path(photo).stem}" if options.photo_names else "",
                        tags=_tag(parts, part, place_of[photo], options.train_per_class),
                    )
                )
    tags = [example.tags["split"] for example in examples if example.tags]
    return DataSplit(
        dataset="image_folder",
        split=split,
        examples=tuple(examples),
        classes=classes,
        fingerprint=fingerprint([], contents),
        sizes={each: tags.count(each) for each in ("train", "test") if tags},
        notes=left_out(others),
    )


_TAGS: Mapping[str, Mapping[str, str]] = {"train": {"split": "train"}, "test": {"split": "test"}, "": {}}


def _tag(parts: Sequence[str], part: str, place: int, train_per_class: int | None) -> Mapping[str, str]:
    if train_per_class is not None:
        return _TAGS["train" if place < train_per_class else "test"]
    return _TAGS["" if len(parts) == 1 else "train" if part == parts[0] else "test"]


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


def photo_hashes(home: Path, names: Sequence[str]) -> dict[str, str]:
    """Name -> sha256 of each photo; raises UserError for one that is a link to nothing."""
    found = file_hashes(home, names)
    gone = [name for name in names if name not in found]
    if gone:
        raise UserError(f"{home / gone[0]} cannot be read (it is a link to nothing): mend it.")
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
