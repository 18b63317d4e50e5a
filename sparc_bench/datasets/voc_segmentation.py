"""PASCAL VOC segmentation in its owners' folder layout: photos with a class for every pixel.

Photos are used as decoded, without applying their EXIF orientation, as is usual in the field and as the masks require.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int
from numpy import ndarray
from PIL import Image
from pydantic import Field

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Example, Examples
from sparc_bench.datasets._photos import Photos, refuse_other_sizes
from sparc_bench.errors import UnreadableImageError, UserError
from sparc_bench.files.annotations import Absent, DataFolder, absent_notes, file_sizes, known_split
from sparc_bench.images.item import stored_size

TITLE = "PASCAL VOC 2012 segmentation: photos with one of 20 classes, background or void for every pixel"
SOURCE = "Everingham et al. 2010, The PASCAL Visual Object Classes Challenge (IJCV 88); VOC2012 development kit"
NEEDS_ON_DISK = (
    "VOCdevkit/VOC2012/ with ImageSets/Segmentation/{train,val,trainval}.txt, JPEGImages/*.jpg and "
    "SegmentationClass/*.png (the option folder names another place)"
)
PROVIDES = frozenset({"semantic"})
SPLITS = {"train": "train", "val": "val", "trainval": "val"}

BACKGROUND = -1
VOID = -2

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
    masks = home.folder(options.masks)
    what = f"the photos of {home.path / list_name}: the data set needs {NEEDS_ON_DISK}"
    folder = home.folder(options.images, options.absent)
    photos = Photos.find(folder, {f"{name}.jpg": 1 for name in listed}, options.absent, what)
    mask_sizes = file_sizes(masks, (f"{name}.png" for name in listed))
    masks_absent: Absent = "skip" if options.absent == "skip" else "refuse"
    notes = photos.notes + absent_notes({f"{name}.png": 1 for name in listed}, mask_sizes, masks, masks_absent)
    present = [name for name in listed if f"{name}.jpg" in photos.sizes and f"{name}.png" in mask_sizes]
    if not present:
        raise UserError(f"{home.path / list_name} lists nothing that is on disk: the data set needs {NEEDS_ON_DISK}.")
    mask_of = {folder / f"{name}.jpg": stored_size(masks / f"{name}.png") for name in present}
    refuse_other_sizes({photo: size for photo, size in mask_of.items() if size is not None}, f"its mask in {masks}")
    annotations = (home.read(f"{options.masks}/{name}.png") for name in sorted(present))
    return Examples(
        dataset="voc_segmentation",
        split=split,
        examples=tuple(
            Example(
                id=name,
                image=photos.item(name, f"{name}.jpg"),
                photo=f"voc:{name}",
                semantic=partial(read_mask, masks / f"{name}.png"),
            )
            for name in present
        ),
        classes=CLASSES,
        fingerprint=photos.fingerprint([home.read(list_name), *annotations], {name: f"{name}.jpg" for name in present}),
        notes=notes,
    )


def read_mask(path: Path) -> Int[ndarray, "H W"]:
    """Class of every pixel of a mask file: 0 to 19, -1 background, -2 void.

    Raises:
        UnreadableImageError: the file cannot be decoded.
        UserError: it holds colours instead of class numbers, or numbers that VOC does not have.
    """
    try:
        with Image.open(path) as image:
            mode = image.mode
            values_HW = np.asarray(image).astype(np.int64)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"{path} cannot be decoded ({error}): copy the file again.") from error
    if mode not in ("P", "L"):
        raise UserError(f"{path} holds colours ({mode}), not class numbers: use the palette files that VOC ships.")
    if ((values_HW > len(CLASSES)) & (values_HW != 255)).any():
        odd = int(values_HW[(values_HW > len(CLASSES)) & (values_HW != 255)][0])
        raise UserError(f"{path} holds the class number {odd}; VOC has 0 to 20 and 255: use the masks that VOC ships.")
    return np.where(values_HW == 255, VOID, values_HW - 1)
