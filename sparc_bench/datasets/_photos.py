"""Photos of a data set on disk, and the names of photos across data sets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sparc_bench.errors import UserError
from sparc_bench.files.annotations import Absent, absent_notes, file_sizes, fingerprint
from sparc_bench.images.item import ImageItem

_COCO_FILE = re.compile(r"(?:.*/)?(?:COCO_(?:train|val)2014_)?(\d{12})\.jpg")
_FLICKR_FILE = re.compile(r"(?:.*/)?(\d+)(?:_[0-9a-z]+)?\.jpg")


@dataclass(frozen=True)
class Photos:
    """The annotated photos in a folder.

    Attributes:
        folder: folder of the photos.
        sizes: file name -> bytes, of the photos on disk.
        notes: sentences about absent photos.
    """

    folder: Path
    sizes: Mapping[str, int]
    notes: tuple[str, ...]

    @classmethod
    def find(cls, folder: Path, rows: Mapping[str, int], absent: Absent, what: str) -> Photos:
        """The annotated photos that are on disk.

        Args:
            folder: folder of the photos.
            rows: file name -> number of its annotations.
            absent: "refuse" or "skip" absent photos.
            what: end of the error if all photos are absent: "the photos of FILE: WHAT TO DO".

        Raises:
            UserError: all photos are absent, or some are and `absent` is "refuse".
        """
        sizes = file_sizes(folder, rows)
        notes = absent_notes(rows, sizes, folder, absent)
        if not sizes:
            raise UserError(f"{folder} has none of {what}.")
        return cls(folder, sizes, notes)

    def item(self, image_id: str, file: str) -> ImageItem:
        """A photo, not yet opened."""
        return ImageItem.file(image_id, self.folder / file)

    def fingerprint(self, annotations: Iterable[bytes], file_of: Mapping[str, str]) -> str:
        """Hash of the annotation files and of images (`file_of`: image id -> file name)."""
        return fingerprint(annotations, {image_id: self.sizes[file] for image_id, file in file_of.items()})


def coco_photo(file: str) -> str:
    """Name of the photo in a COCO file, the same for the releases of 2014 and 2017; empty for any other file.

    >>> coco_photo("000000000139.jpg"), coco_photo("val2014/COCO_val2014_000000000139.jpg"), coco_photo("139.jpg")
    ('coco:139', 'coco:139', '')
    """
    found = _COCO_FILE.fullmatch(file)
    return f"coco:{int(found[1])}" if found else ""


def flickr_photo(file: str) -> str:
    """Name of the photo in a file of Flickr8k or Flickr30k, by Flickr's photo id; empty for any other file.

    >>> flickr_photo("1000268201_693b08cb0e.jpg"), flickr_photo("1000268201.jpg"), flickr_photo("dog.jpg")
    ('flickr:1000268201', 'flickr:1000268201', '')
    """
    found = _FLICKR_FILE.fullmatch(file)
    return f"flickr:{found[1]}" if found else ""
