"""Photos of a data set on disk, and the names of photos across data sets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sparc_bench.errors import UserError
from sparc_bench.files.annotations import Missing, absent_notes, file_sizes, fingerprint
from sparc_bench.files.file_hashes import UNREADABLE, file_hashes
from sparc_bench.images.item import ImageItem, is_stored_turned, stored_size

_COCO_FILE = re.compile(r"(?:.*/)?(?:COCO_(?:train|val)2014_)?(\d{12})\.jpg")
_FLICKR_FILE = re.compile(r"(?:.*/)?(\d+)(?:_[0-9a-z]+)?\.jpg")


@dataclass(frozen=True)
class Photos:
    """The annotated photos in a folder.

    Attributes:
        folder: folder of the photos.
        sizes: file name -> bytes, of the photos on disk.
        hashes: file name -> sha256 of the content, of the photos on disk.
        notes: sentences about absent photos.
        unopened: whether some are absent and kept all the same, so that the hash knows no photo.
    """

    folder: Path
    sizes: Mapping[str, int]
    hashes: Mapping[str, str]
    notes: tuple[str, ...]
    unopened: bool = False

    @classmethod
    def find(cls, folder: Path, rows: Mapping[str, int], absent: Missing, what: str) -> Photos:
        """The annotated photos that are on disk.

        Args:
            folder: folder of the photos.
            rows: file name -> number of its annotations.
            absent: "refuse", "skip" or "keep" absent photos; kept ones have 0 bytes.
            what: end of the error if all photos are absent: "the photos of FILE: WHAT TO DO".

        Raises:
            UserError: all photos are absent, or some are and `absent` is "refuse".
        """
        sizes = file_sizes(folder, rows)
        notes = absent_notes(rows, sizes, folder, absent)
        if absent == "keep" and len(sizes) < len(rows):
            kept = {name: sizes.get(name, 0) for name in rows}
            return cls(folder, kept, file_hashes(folder, sizes), notes, unopened=True)
        if not sizes:
            raise UserError(f"{folder} has none of {what}.")
        return cls(folder, sizes, file_hashes(folder, sizes), notes)

    def item(self, image_id: str, file: str) -> ImageItem:
        """A photo, not yet opened."""
        return ImageItem.file(image_id, self.folder / file, content=self.hashes.get(file, UNREADABLE))

    def fingerprint(self, annotations: Iterable[bytes], file_of: Mapping[str, str]) -> str:
        """Hash of the annotation files and of images (`file_of`: image id -> file name)."""
        if self.unopened:
            return fingerprint(annotations, {})
        return fingerprint(annotations, {id_: self.hashes.get(file, UNREADABLE) for id_, file in file_of.items()})


def refuse_other_sizes(photos: Mapping[Path, tuple[int, int]], where: str) -> None:
    """Raise UserError where a photo is not of the size that its boxes or masks are in; no photo is decoded.

    Args:
        photos: path of each photo -> width and height that the annotations state.
        where: what states them, for the error.
    """
    found = {path: stored_size(path) for path in photos}
    odd = [path for path, size in found.items() if size not in (None, photos[path])]
    if not odd:
        return
    (width, height), stated = found[odd[0]] or (0, 0), photos[odd[0]]
    count = f"{len(odd)} of {len(photos)} photos are of another size, such as " if len(odd) > 1 else ""
    mend = "put the photos there that were annotated, at their own size"
    if (height, width) == stated and is_stored_turned(odd[0]):
        mend = (
            "its EXIF orientation would turn it, which is not applied, as in the field's own tools: save the photos "
            "as they are shown, without that tag"
        )
    raise UserError(
        f"{count}{odd[0]} has {width} x {height} pixels, {where} states {stated[0]} x {stated[1]} (width x height): "
        f"{mend}."
    )


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
