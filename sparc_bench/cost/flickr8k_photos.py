"""A data set (plug-in) to measure the time of encoding: all photos of Flickr8k's folder, with arbitrary labels.

The official lists hold 8,000 of the 8,091 photos.
"""

from __future__ import annotations

from pathlib import Path

import open_clip
from pydantic import Field

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Example, Examples
from sparc_bench.files.annotations import DataFolder, fingerprint
from sparc_bench.files.file_hashes import file_hashes
from sparc_bench.images.item import ImageItem

TITLE = "Flickr8k's photos with arbitrary labels, to measure the time of encoding"
SOURCE = "Hodosh, Young, Hockenmaier 2013"
NEEDS_ON_DISK = "flickr8k/ with images/*.jpg"
PROVIDES = frozenset({"labels"})
SPLITS = ("all",)
CLASSES = 100


class Options(Strict):
    """Size of the data set."""

    n: int | None = Field(default=None, description="number of photos, the first by name; none: all")


def read(root: Path | None, split: str, options: Options) -> Examples:
    """The photos by name, with ImageNet's first 100 class names in turn."""
    images = DataFolder.find(root, "flickr8k", NEEDS_ON_DISK).folder("images")
    names = sorted(path.name for path in images.glob("*.jpg"))[: options.n]
    hashes = file_hashes(images, names)
    return Examples(
        dataset="flickr8k_photos",
        split=split,
        examples=tuple(
            Example(name, ImageItem.file(name, images / name, content=hashes[name]), label=row % CLASSES)
            for row, name in enumerate(names)
        ),
        classes=tuple(open_clip.IMAGENET_CLASSNAMES[:CLASSES]),
        fingerprint=fingerprint([], hashes),
    )
