"""PASCAL VOC segmentation in its owners' folder layout: photos with a class for every pixel.

Photos are used as decoded, without applying their EXIF orientation, as is usual in the field and as the masks require.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from pydantic import Field

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Example, Examples
from sparc_bench.datasets._index_masks import VOID, MaskedPhotos, index_values
from sparc_bench.errors import UserError
from sparc_bench.files.annotations import Absent, DataFolder, known_split

TITLE = "PASCAL VOC 2012 segmentation: photos with one of 20 classes, background or void for every pixel"
SOURCE = "Everingham et al. 2010, The PASCAL Visual Object Classes Challenge (IJCV 88); VOC2012 development kit"
NEEDS_ON_DISK = (
    "VOCdevkit/VOC2012/ with ImageSets/Segmentation/{train,val,trainval}.txt, JPEGImages/*.jpg and "
    "SegmentationClass/*.png (the option folder names another place)"
)
PROVIDES = frozenset({"semantic"})
SPLITS = {"train": "train", "val": "val", "trainval": "val"}

MEND = "use the palette files that VOC ships"

CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


class Options(Strict):
    """Folders of the data set; augmented masks (SegmentationClassAug) need their own `masks` folder and split list."""

    folder: str = Field(default="VOCdevkit/VOC2012", description="folder of the data set, under the data root")
    images: str = Field(default="JPEGImages", description="folder of the photos, in the folder")
    masks: str = Field(default="SegmentationClass", description="folder of the palette masks, in the folder")
    lists: str = Field(default="ImageSets/Segmentation", description="folder of the split lists, in the folder")
    absent: Absent = Field(default="refuse", description="listed photos or masks that are not on disk: refuse or skip")


def read(root: Path | None, split: str, options: Options) -> Examples:
    """A split in the order of its list, with VOC's ids (such as 2007_000033).

    `semantic` returns 0 to 19 for the classes, -1 for background and -2 for void (border and difficult pixels, 255 in
    the file, which VOC excludes from scoring).

    Raises:
        UserError: a file is missing or malformed.
    """
    known_split(split, SPLITS, "voc_segmentation")
    home = DataFolder.find(root, options.folder, NEEDS_ON_DISK)
    list_name = f"{options.lists}/{split}.txt"
    listed = home.lines(list_name)
    folders, suffixes = (options.images, options.masks), (".jpg", ".png")
    found = MaskedPhotos.find(home, listed, folders, suffixes, options.absent, home.path / list_name)
    found.refuse_misfits(MEND)
    annotations = (home.read(f"{options.masks}/{name}.png") for name in sorted(found.names))
    return Examples(
        dataset="voc_segmentation",
        split=split,
        examples=tuple(
            Example(
                id=name,
                image=found.photos.item(name, f"{name}.jpg"),
                photo=f"voc:{name}",
                semantic=partial(read_mask, found.mask(name)),
            )
            for name in found.names
        ),
        classes=CLASSES,
        fingerprint=found.photos.fingerprint(
            [home.read(list_name), *annotations], {name: f"{name}.jpg" for name in found.names}
        ),
        notes=found.notes,
    )


def read_mask(path: Path) -> Int[ndarray, "H W"]:
    """Class of every pixel of a mask file: 0 to 19, -1 background, -2 void.

    Raises:
        UnreadableImageError: the file cannot be decoded.
        UserError: it holds colours instead of class numbers, or numbers that VOC does not have.
    """
    values_HW = index_values(path, MEND)
    if ((values_HW > len(CLASSES)) & (values_HW != 255)).any():
        odd = int(values_HW[(values_HW > len(CLASSES)) & (values_HW != 255)][0])
        raise UserError(f"{path} holds the class number {odd}; VOC has 0 to 20 and 255: use the masks that VOC ships.")
    return np.where(values_HW == 255, VOID, values_HW - 1)
