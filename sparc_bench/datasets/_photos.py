"""The photos of a data set: which are on disk, and the names that all data sets with the same photo share."""

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
    """The annotated photos of a folder.

    Attributes:
        folder: where they lie.
        sizes: file name -> bytes, of those that are on disk.
        notes: sentences about those that are not.
    """

    folder: Path
    sizes: Mapping[str, int]
    notes: tuple[str, ...]

    @classmethod
    def find(cls, folder: Path, rows: Mapping[str, int], absent: Absent, what: str) -> Photos:
        """The photos that are on disk.

        Args:
            folder: where they are looked for.
            rows: file name -> number of annotations about it.
            absent: what is done about photos that are not there.
            what: ends the sentence where none is there: "the photos of FILE: what to do".

        Raises:
            UserError: none is there, or some are not and `absent` is "refuse".
        """
        sizes = file_sizes(folder, rows)
        notes = absent_notes(rows, sizes, folder, absent)
        if not sizes:
            raise UserError(f"{folder} has none of {what}.")
        return cls(folder, sizes, notes)

    def item(self, image_id: str, file: str) -> ImageItem:
        """One photo, not yet opened."""
        return ImageItem.file(image_id, self.folder / file)

    def fingerprint(self, annotations: Iterable[bytes], file_of: Mapping[str, str]) -> str:
        """The hash of the annotation files and of these images (image id -> file)."""
        return fingerprint(annotations, {image_id: self.sizes[file] for image_id, file in file_of.items()})


def coco_photo(file: str) -> str:
    """The photo of a file of COCO, of the releases of 2014 and 2017 alike; empty for any other file.

    >>> coco_photo("000000000139.jpg"), coco_photo("val2014/COCO_val2014_000000000139.jpg"), coco_photo("139.jpg")
    ('coco:139', 'coco:139', '')
    """
    found = _COCO_FILE.fullmatch(file)
    return f"coco:{int(found[1])}" if found else ""


def flickr_photo(file: str) -> str:
    """The photo of a file of Flickr8k or Flickr30k, which hold Flickr's own photo ids; empty for any other file.

    >>> flickr_photo("1000268201_693b08cb0e.jpg"), flickr_photo("1000268201.jpg"), flickr_photo("dog.jpg")
    ('flickr:1000268201', 'flickr:1000268201', '')
    """
    found = _FLICKR_FILE.fullmatch(file)
    return f"flickr:{found[1]}" if found else ""
