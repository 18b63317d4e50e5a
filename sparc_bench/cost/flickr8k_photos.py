"""Plug-in data set for measuring time: all photos of Flickr8k's folder, with labels that mean nothing.

The official lists hold 8,000 of the 8,091 photos.
"""

from __future__ import annotations

from pathlib import Path

import open_clip
from pydantic import Field

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import DataSplit, Example
from sparc_bench.files.annotations import DataFolder, file_sizes, fingerprint
from sparc_bench.images.item import ImageItem

TITLE = "Flickr8k's photos for measurements of time; labels mean nothing"
SOURCE = "Hodosh, Young, Hockenmaier 2013"
NEEDS_ON_DISK = "flickr8k/ with images/*.jpg"
PROVIDES = frozenset({"labels"})
SPLITS = ("all",)
CLASSES = 100


class Options(Strict):
    """How many photos."""

    n: int | None = Field(default=None, description="the first so many; none: all")


def read(root: Path | None, split: str, options: Options) -> DataSplit:
    """The photos by name; ImageNet's first 100 class names, given to them in turn."""
    images = DataFolder.find(root, "flickr8k", NEEDS_ON_DISK).folder("images")
    names = sorted(path.name for path in images.glob("*.jpg"))[: options.n]
    return DataSplit(
        dataset="flickr8k_photos",
        split=split,
        examples=tuple(
            Example(name, ImageItem.file(name, images / name), label=row % CLASSES) for row, name in enumerate(names)
        ),
        classes=tuple(open_clip.IMAGENET_CLASSNAMES[:CLASSES]),
        fingerprint=fingerprint([], file_sizes(images, names)),
    )
