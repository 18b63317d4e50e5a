"""Any COCO-format instances file with a folder of photos: boxes, classes and masks of objects.

The split is a label that fills `{split}` in the options' paths. Photos are used as decoded: an EXIF orientation is not
applied, as in the field's own tools and as the annotations want it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
from jaxtyping import Bool
from numpy import ndarray
from pydantic import Field, model_validator

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import DataSplit, Example, Region
from sparc_bench.datasets._photo_names import coco_photo
from sparc_bench.datasets._run_lengths import refuse_damaged
from sparc_bench.errors import UserError
from sparc_bench.files.annotations import (
    COCO_SPLITS,
    Absent,
    CocoImage,
    CocoRow,
    DataFolder,
    absent_notes,
    coco_images,
    file_sizes,
    fingerprint,
    known_split,
    read_json,
    repeated,
    some,
)
from sparc_bench.images.item import ImageItem

TITLE = "COCO instances, or any instances file in COCO's format: boxes, classes and masks of objects"
SOURCE = "Lin et al. 2014, Microsoft COCO: Common Objects in Context (arXiv:1405.0312)"
NEEDS_ON_DISK = (
    "coco/ with annotations/instances_SPLIT.json and SPLIT/*.jpg, such as val2017 "
    "(the options folder, annotations and images name other places)"
)
PROVIDES = frozenset({"boxes", "masks"})
SPLITS = COCO_SPLITS


class Options(Strict):
    """Which files to read; `{split}` in a path stands for the split."""

    folder: str = Field(default="coco", description="under the data root")
    annotations: str = Field(default="annotations/instances_{split}.json", description="in the folder")
    images: str = Field(default="{split}", description="folder of the photos, in the folder")
    absent: Absent = Field(default="refuse", description="rows of photos that are not on disk: refuse or skip")


class RunLengths(CocoRow):
    """A mask as COCO's run lengths: counts as a list, or packed into a string; size is height, width."""

    counts: list[int] | str
    size: tuple[int, int]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        refuse_damaged(self.counts, *self.size)
        return self


Polygons = list[list[float]]


class Object(CocoRow):
    """An entry of "annotations"."""

    id: int | str
    image_id: int | str
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: bool = False
    segmentation: RunLengths | Polygons = Field(default=[])


class Category(CocoRow):
    """An entry of "categories"."""

    id: int
    name: str


class SizedImage(CocoImage):
    """An entry of "images" that states its size."""

    width: int = Field(gt=0)
    height: int = Field(gt=0)


class _InstanceFile(CocoRow):
    images: list[SizedImage]
    annotations: list[Object]
    categories: list[Category]


def read(root: Path | None, split: str, options: Options) -> DataSplit:
    """One instances file, images and objects in its order; ids are COCO's image ids.

    Labels count the categories from 0 in order of their ids. Boxes are left, top, right, bottom; `area` is the file's
    own (of the mask). Images without objects stay; objects whose box has no width or height are left out and counted
    in `notes`. `facts` of an example is {"width", "height"} as the file states them.

    Raises:
        UserError: something is missing or malformed on disk.
    """
    known_split(split, SPLITS, "coco_instances")
    home = DataFolder.find(root, options.folder, NEEDS_ON_DISK)
    name = options.annotations.replace("{split}", split)
    content = home.read(name)
    file = read_json(_InstanceFile, content, home.path / name)
    folder = home.folder(options.images.replace("{split}", split))
    by_id = coco_images(file.images, (row.image_id for row in file.annotations), home.path / name)
    label_of = labels_of(file.categories, file.annotations, home.path / name)

    objects: dict[int | str, list[Object]] = {image_id: [] for image_id in by_id}
    flat = 0
    for row in file.annotations:
        if row.bbox[2] > 0 and row.bbox[3] > 0:
            objects[row.image_id].append(row)
        else:
            flat += 1
    rows = {image.file_name: len(objects[image_id]) for image_id, image in by_id.items()}
    sizes = file_sizes(folder, rows)
    notes = absent_notes(rows, sizes, folder, options.absent)
    if flat:
        notes += (f"{flat} objects of {name} have a box without width or height and are left out.",)
    present = {image_id: image for image_id, image in by_id.items() if image.file_name in sizes}
    if not present:
        raise UserError(f"{folder} has none of the photos of {home.path / name}: mend the option 'images'.")
    return DataSplit(
        dataset="coco_instances",
        split=split,
        examples=tuple(
            Example(
                id=str(image_id),
                image=ImageItem.file(str(image_id), folder / image.file_name),
                regions=tuple(
                    region_of(row, label_of[row.category_id], image.height, image.width) for row in objects[image_id]
                ),
                photo=coco_photo(image.file_name),
                facts={"width": image.width, "height": image.height},
            )
            for image_id, image in present.items()
        ),
        classes=tuple(category.name for category in sorted(file.categories, key=lambda category: category.id)),
        category_ids=tuple(label_of),
        fingerprint=fingerprint(
            [content], {str(image_id): sizes[image.file_name] for image_id, image in present.items()}
        ),
        notes=notes,
    )


def labels_of(categories: Sequence[Category], objects: Sequence[Object], where: Path) -> dict[int, int]:
    """Category id -> label, counted from 0 in order of the ids.

    Raises:
        UserError: a category stands there twice, or an object is of one that the file does not list.
    """
    ids = sorted(category.id for category in categories)
    twice = [str(category_id) for category_id in repeated(ids)] + repeated([one.name for one in categories])
    if twice:
        raise UserError(f'{where} has category {some(twice)} more than once: take it out of "categories".')
    unknown = sorted({str(row.category_id) for row in objects} - {str(category_id) for category_id in ids})
    if unknown:
        raise UserError(f'{where} has objects of category {some(unknown)}, which its "categories" lack: add it there.')
    return {category_id: label for label, category_id in enumerate(ids)}


def region_of(row: Object, label: int, height: int, width: int) -> Region:
    """An object of an image of that size."""
    left, top, box_width, box_height = row.bbox
    return Region(
        box=(left, top, left + box_width, top + box_height),
        label=label,
        area=row.area,
        mask=partial(decode_mask, row.segmentation, height, width) if row.segmentation else None,
        crowd=row.iscrowd,
    )


def decode_mask(segmentation: RunLengths | Polygons, height: int, width: int) -> Bool[ndarray, "H W"]:
    """The pixels of polygons (their union) or run lengths, by pycocotools.

    Raises:
        UserError: run lengths of another size than the image, or what pycocotools refuses.
    """
    from pycocotools import mask as coco_mask

    try:
        if isinstance(segmentation, list):
            lengths = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
        elif isinstance(segmentation.counts, str):
            lengths = {"counts": segmentation.counts.encode(), "size": list(segmentation.size)}
        else:
            lengths = coco_mask.frPyObjects(
                {"counts": segmentation.counts, "size": list(segmentation.size)}, *segmentation.size
            )
        mask: ndarray = coco_mask.decode(lengths)
    except Exception as error:
        raise UserError(f"A mask cannot be decoded ({error}): mend its segmentation in the instances file.") from error
    if mask.shape != (height, width):
        raise UserError(
            f"A mask of {mask.shape[0]} x {mask.shape[1]} pixels belongs to an image of {height} x {width}: "
            "mend its size in the instances file."
        )
    return mask.astype(np.bool_)
