"""Any folder of photos beside a folder of index masks, as mmsegmentation lays out ADE20K, Cityscapes and others.

What the pixel values of a mask mean is said by options, in the task card: no file is converted first. Photos are used
as decoded, without applying their EXIF orientation, as is usual in the field and as the masks require.

Shapes: H W pixels, C classes, V pixel values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from pydantic import Field

from sparc_bench.cards.card import Strict
from sparc_bench.cards.prompts import class_list
from sparc_bench.dataset import Computed, Examples, LazyExamples
from sparc_bench.datasets._index_masks import BACKGROUND, VOID, MaskedPhotos, index_values
from sparc_bench.datasets._photos import coco_photo, refuse_other_sizes
from sparc_bench.errors import UserError
from sparc_bench.files.annotations import Absent, DataFolder, known_split, repeated, some
from sparc_bench.files.file_hashes import UNREADABLE, file_hashes
from sparc_bench.images.item import ImageItem

TITLE = "mask folders: photos beside index masks, with the meaning of the masks' values in the task card"
SOURCE = "the owner of the folders; the task card names the data set"
NEEDS_ON_DISK = (
    "a folder of photos, a folder of index masks (of 8 or 16 bits, or with a palette) of the same names and sizes, and "
    "the names of the classes in their order (a class list, or a text file of one name a line)"
)
PROVIDES = frozenset({"semantic"})
SPLITS = {"train": "train", "val": "val", "test": "test"}

MEND = "save the numbers themselves, as a PNG with a palette or in greys"

MOST = 65_535
"""Highest value of a mask, that of 16 bits."""

Value = Annotated[int, Field(ge=0, le=MOST)]
"""Pixel value of a mask."""


class Options(Strict):
    """Folders, names of the files, and the meaning of the masks' values; {split} stands for the split's name."""

    folder: str = Field(default="mask_folders", description="folder of the data set, under the data root")
    images: str = Field(default="images/{split}", description="folder of the photos, in the folder")
    masks: str = Field(default="masks/{split}", description="folder of the masks, in the folder")
    image_suffix: str = Field(default=".jpg", description="what follows a name in the file of its photo")
    mask_suffix: str = Field(default=".png", description="what follows a name in the file of its mask")
    listed: str = Field(
        default="photos",
        description="photos: every photo (a mask without one is left alone); masks: every mask; else a text file in "
        "the folder with one name a line, without suffix",
    )
    classes: str = Field(
        default="classes.txt",
        description="a text file in the folder (its name ends in .txt) with one class a line, or a class list (a card "
        "of tasks/classes), in the order of the classes",
    )
    values: tuple[Value, ...] = Field(
        default=(),
        description="mask value of each class, in the order of the classes; empty: they count from 0 where zero is a "
        "class, else from 1",
    )
    zero: Literal["class", "background", "void"] = Field(
        default="class",
        description="what the value 0 is: a class, background, or void, which is never scored (mmsegmentation's "
        "reduce_zero_label is void)",
    )
    void: tuple[Value, ...] = Field(default=(255,), description="further values that are never scored")
    others: Literal["refuse", "background", "void"] = Field(
        default="refuse", description="what a value is that stands for nothing else"
    )
    absent: Absent = Field(default="refuse", description="photos or masks that are not on disk: refuse or skip")
    bad: Absent = Field(
        default="refuse",
        description="masks of another size than their photo, of colours, of unknown values or damaged: refuse, or "
        "skip, which opens every mask once and leaves bad ones out with a note",
    )
    photo_names: str = Field(
        default="",
        description="name of the photos' source, for exposure; a photo is named NAME:FILE without suffix (files of "
        "COCO by their number)",
    )


def read(root: Path | None, split: str, options: Options) -> Examples:
    """The photos that have masks, in the order of the list or sorted; an id is the path in the folder without suffix.

    `semantic` opens a mask when it is asked for: classes from 0, -1 background, -2 void.

    Raises:
        UserError: a file or folder is missing, classes and values do not fit, or masks are bad and not skipped.
    """
    known_split(split, SPLITS, "mask_folders")
    home = DataFolder.find(root, options.folder.replace("{split}", split), NEEDS_ON_DISK)
    images, masks, listed, classes = (
        name.replace("{split}", split) for name in (options.images, options.masks, options.listed, options.classes)
    )
    names, contents = _listed(home, listed, (images, options.image_suffix), (masks, options.mask_suffix))
    where = home.path / {"photos": images, "masks": masks}.get(listed, listed)
    suffixes = options.image_suffix, options.mask_suffix
    found = MaskedPhotos.find(home, names, (images, masks), suffixes, options.absent, where)
    class_names = _class_names(home, classes)
    meaning = label_map(options, class_names)
    good, notes = _good(found, options, meaning)
    files = [f"{name}{options.image_suffix}" for name in good]
    hash_of_mask = file_hashes(found.masks, (f"{name}{options.mask_suffix}" for name in good))
    rows = "".join(f"{name}\t{hash_of_mask.get(f'{name}{options.mask_suffix}', UNREADABLE)}\n" for name in sorted(good))
    return Examples(
        dataset="mask_folders",
        split=split,
        examples=LazyExamples.of(
            {
                "id": good,
                "photo": Computed(len(good), partial(_photo, files, good, options.photo_names)),
                "semantic": Computed(len(good), partial(_semantic, found, good, meaning)),
            },
            partial(_image, found, good, files),
        ),
        classes=class_names,
        fingerprint=found.photos.fingerprint(
            [*contents, "\n".join(class_names).encode(), rows.encode()], dict(zip(good, files, strict=True))
        ),
        notes=(*found.notes, *notes),
    )


def _photo(files: Sequence[str], names: Sequence[str], source: str, row: int) -> str:
    return coco_photo(files[row]) or (f"{source}:{names[row]}" if source else "")


def _semantic(found: MaskedPhotos, names: Sequence[str], meaning: LabelMap, row: int) -> partial[Int[ndarray, "H W"]]:
    return partial(meaning.read, found.mask(names[row]))


def _image(found: MaskedPhotos, names: Sequence[str], files: Sequence[str], row: int) -> ImageItem:
    return found.photos.item(names[row], files[row])


def _listed(
    home: DataFolder, listed: str, images: tuple[str, str], masks: tuple[str, str]
) -> tuple[list[str], list[bytes]]:
    """Names without suffix, and the bytes of the list; `images` and `masks` are folder and suffix."""
    if listed not in ("photos", "masks"):
        return home.lines(listed), [home.read(listed)]
    folder, suffix = images if listed == "photos" else masks
    path = home.folder(folder)
    files = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.name.endswith(suffix))
    if not files:
        raise UserError(f"{path} has no file whose name ends in '{suffix}': the data set needs {home.needs}.")
    return [file.removesuffix(suffix) for file in files], []


def _class_names(home: DataFolder, classes: str) -> tuple[str, ...]:
    return tuple(home.lines(classes) if classes.endswith(".txt") else class_list(classes))


@dataclass(frozen=True)
class LabelMap:
    """The meaning of pixel values.

    Attributes:
        class_of_value: class of each value from 0, -1 background, -2 void; `UNKNOWN` for a value that means nothing.
        beyond: the meaning of all higher values.
    """

    class_of_value: Int[ndarray, "V"]
    beyond: int

    def read(self, path: Path) -> Int[ndarray, "H W"]:
        """Class of every pixel of a mask file: from 0, -1 background, -2 void.

        Raises:
            UnreadableImageError: the file cannot be decoded.
            UserError: it holds colours, or a value that means nothing.
        """
        values_HW = index_values(path, MEND)
        inside_HW = (values_HW >= 0) & (values_HW < len(self.class_of_value))
        last = len(self.class_of_value) - 1
        found_HW = np.where(inside_HW, self.class_of_value[values_HW.clip(0, last)], self.beyond)
        odd = values_HW[found_HW == UNKNOWN]
        if len(odd):
            raise UserError(
                f"{path} holds the value {odd[0]}, which is no class of the data set, no background and not void: mend "
                "the mask, or say what it means by the reader's options values, zero, void or others."
            )
        return found_HW


UNKNOWN = -3


def label_map(options: Options, classes: Sequence[str]) -> LabelMap:
    """The meaning of pixel values that the options give; raises UserError where they contradict the classes."""
    if options.values and len(options.values) != len(classes):
        raise UserError(
            f"The reader's option values has {len(options.values)} mask values for the {len(classes)} classes of "
            f"'{options.classes}': give each class one, in the order of the classes."
        )
    first = 0 if options.zero == "class" else 1
    values = options.values or tuple(range(first, first + len(classes)))
    twice = repeated(values)
    if twice:
        raise UserError(
            f"The reader's option values has {twice[0]} more than once: give each class a value of its own."
        )
    never = {*options.void, *([0] if options.zero != "class" else [])}
    class_of = {value: label for label, value in enumerate(values)}
    both = sorted(never & class_of.keys())
    if both:
        raise UserError(
            f"The mask value {both[0]} is the class '{classes[class_of[both[0]]]}' and not a class by the reader's "
            "options zero and void: take it out of one."
        )
    beyond = {"refuse": UNKNOWN, "background": BACKGROUND, "void": VOID}[options.others]
    class_of_value_V = np.full(max((0, *never, *class_of)) + 1, beyond, dtype=np.int64)
    class_of_value_V[list(class_of)] = list(class_of.values())
    if options.zero != "class":
        class_of_value_V[0] = BACKGROUND if options.zero == "background" else VOID
    class_of_value_V[list(options.void)] = VOID
    return LabelMap(class_of_value_V, beyond)


def _good(found: MaskedPhotos, options: Options, meaning: LabelMap) -> tuple[list[str], tuple[str, ...]]:
    """The names whose masks can be scored, and a note about the others."""
    if options.bad == "refuse":
        found.refuse_misfits(MEND)
        return list(found.names), ()
    trouble = {name: _trouble(found, name, meaning) for name in found.names}
    good = [name for name, sentence in trouble.items() if not sentence]
    bad = {name: sentence for name, sentence in trouble.items() if sentence}
    if not bad:
        return good, ()
    first = next(iter(bad.values()))
    if not good:
        raise UserError(f"All {len(bad)} masks are bad; the first: {first}")
    return good, (
        f"{len(bad)} of {len(trouble)} masks are bad and left out with their photos: {some(list(bad))}; the first: "
        f"{first}",
    )


def _trouble(found: MaskedPhotos, name: str, meaning: LabelMap) -> str:
    """The sentence about what is wrong with a mask; empty where nothing is."""
    try:
        height, width = meaning.read(found.mask(name)).shape
        refuse_other_sizes({found.photo(name): (width, height)}, f"its mask {found.mask(name)}")
    except UserError as error:
        return str(error)
    return ""
