"""Photos with index masks: a file beside each photo whose pixel values stand for classes.

Shapes: H W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from PIL import Image

from sparc_bench.datasets._photos import Photos, refuse_other_sizes
from sparc_bench.errors import UnreadableImageError, UserError
from sparc_bench.files.annotations import Absent, DataFolder, absent_notes, file_sizes

BACKGROUND = -1
VOID = -2

INDEXED = ("1", "L", "P", "I", "I;16")
"""Pillow's modes of files that hold numbers and no colours."""


@dataclass(frozen=True)
class MaskedPhotos:
    """The photos of a list and their masks.

    Attributes:
        photos: the photos on disk.
        masks: folder of the masks.
        names: names without suffix, in the list's order, of photos that are on disk with their masks.
        suffixes: what follows a name in the file of its photo, and in that of its mask.
        notes: sentences about absent photos and masks.
    """

    photos: Photos
    masks: Path
    names: tuple[str, ...]
    suffixes: tuple[str, str]
    notes: tuple[str, ...]

    @classmethod
    def find(
        cls,
        home: DataFolder,
        listed: Sequence[str],
        folders: tuple[str, str],
        suffixes: tuple[str, str],
        absent: Absent,
        where: Path,
    ) -> MaskedPhotos:
        """The listed photos that are on disk with their masks.

        Args:
            home: folder of the data set.
            listed: names without suffix.
            folders: folder of the photos and folder of the masks, in `home`.
            suffixes: what follows the name in the file of a photo, and in that of a mask.
            absent: "refuse" or "skip" a photo without a mask, and a mask without a photo.
            where: what lists them, for errors.

        Raises:
            UserError: a folder is missing, or a file is and `absent` is "refuse", or nothing is on disk.
        """
        image_of, mask_of = ({name: f"{name}{suffix}" for name in listed} for suffix in suffixes)
        masks = home.folder(folders[1])
        what = f"the photos of {where}: the data set needs {home.needs}"
        photos = Photos.find(home.folder(folders[0]), dict.fromkeys(image_of.values(), 1), absent, what)
        on_disk = file_sizes(masks, mask_of.values())
        notes = photos.notes + absent_notes(dict.fromkeys(mask_of.values(), 1), on_disk, masks, absent)
        names = [name for name in listed if image_of[name] in photos.sizes and mask_of[name] in on_disk]
        if not names:
            raise UserError(f"{where} lists nothing that is on disk: the data set needs {home.needs}.")
        return cls(photos, masks, tuple(names), suffixes, notes)

    def photo(self, name: str) -> Path:
        """Path of a photo."""
        return self.photos.folder / f"{name}{self.suffixes[0]}"

    def mask(self, name: str) -> Path:
        """Path of a mask."""
        return self.masks / f"{name}{self.suffixes[1]}"

    def refuse_misfits(self, mend: str) -> None:
        """Raise UserError where a mask holds colours or has another size than its photo; nothing is decoded."""
        sizes = {self.photo(name): _size(self.mask(name), mend) for name in self.names}
        refuse_other_sizes({photo: size for photo, size in sizes.items() if size}, f"its mask in {self.masks}")


def _size(path: Path, mend: str) -> tuple[int, int] | None:
    """Width and height of a mask, from its header alone; None where that cannot be read."""
    try:
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(path) as image,
        ):
            _refuse_colours(path, image.mode, mend)
            return image.size
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _refuse_colours(path: Path, mode: str, mend: str) -> None:
    if mode not in INDEXED:
        raise UserError(f"{path} holds colours ({mode}), not class numbers: {mend}.")


def index_values(path: Path, mend: str) -> Int[ndarray, "H W"]:
    """The number of every pixel of an index mask, that of the palette where it has one.

    Args:
        path: path of the mask.
        mend: what to do about a file of colours; the end of the error.

    Raises:
        UnreadableImageError: the file cannot be decoded.
        UserError: it holds colours.
    """
    try:
        with Image.open(path) as image:
            mode = image.mode
            values = np.asarray(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"{path} cannot be decoded ({error}): copy the file again.") from error
    _refuse_colours(path, mode, mend)
    return values.astype(np.int64)
