"""LVIS in its owners' format: boxes, masks and over a thousand classes, of which each image was checked for a few.

An image's annotations say which classes are in it, which were looked for and are not (`neg_category_ids`), and which
are in it but not all marked (`not_exhaustive_category_ids`); about all others nothing is known, and nothing is scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from PIL import Image
from pydantic import Field

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Examples, LazyExamples
from sparc_bench.datasets._coco_columns import ObjectColumns, PhotoColumns
from sparc_bench.datasets._coco_json import (
    Annotation,
    Category,
    CocoFiles,
    SizedImage,
    images_by_id,
    labels_of,
    objects_by_image,
    with_flat,
)
from sparc_bench.datasets._photos import Photos, refuse_other_sizes
from sparc_bench.errors import UserError
from sparc_bench.facets import Federated
from sparc_bench.files.annotations import Absent, CocoRow, DataFolder, fingerprint, known_split, some
from sparc_bench.images.item import ImageItem

TITLE = "LVIS: objects of over a thousand classes, each image checked for some of them (federated)"
SOURCE = (
    "Gupta, Dollar and Girshick 2019, LVIS: A Dataset for Large Vocabulary Instance Segmentation (arXiv:1908.03195)"
)
NEEDS_ON_DISK = (
    "lvis/ with lvis_v1_SPLIT.json, and coco/ with the photos as COCO ships them, such as val2017/*.jpg "
    "(the options folder, annotations and photos name other places)"
)
PROVIDES = frozenset({"boxes", "masks", "pixel_size", "federated"})
SPLITS = {"train": "train", "val": "val"}


class Options(Strict):
    """Files of the data set; `{split}` in a path stands for the split's name."""

    folder: str = Field(default="lvis", description="folder of the data set, under the data root")
    annotations: str = Field(default="lvis_v1_{split}.json", description="annotations file, in the folder")
    photos: str = Field(
        default="coco",
        description="folder with COCO's folders of photos, under the data root; empty: no photos, enough for `score`",
    )
    absent: Absent = Field(default="refuse", description="annotated images that are not on disk: refuse or skip")


class _Image(SizedImage):
    file_name: str = ""
    coco_url: str
    neg_category_ids: list[int]
    not_exhaustive_category_ids: list[int]

    @property
    def photo(self) -> str:
        """Folder and file name as COCO ships them (LVIS mixes COCO's folders)."""
        return "/".join(self.coco_url.split("/")[-2:])


class _Category(Category):
    frequency: Literal["r", "c", "f"]


class _File(CocoRow):
    images: list[_Image]
    annotations: list[Annotation]
    categories: list[_Category]


def read(root: Path | None, split: str, options: Options) -> Examples:
    """One annotation file, images and objects in its order; ids are COCO's image ids.

    Labels, boxes and areas are as in `coco_instances`. Examples have the facets `PixelSize` and
    `Federated`. Without photos every image can be named and none opened.

    Raises:
        UserError: something is missing or malformed on disk.
    """
    known_split(split, SPLITS, "lvis")
    files = CocoFiles(DataFolder.find(root, options.folder, NEEDS_ON_DISK), split)
    where = files.path(options.annotations)
    file = files.read(_File, options.annotations)
    by_id = images_by_id(file.images, (row.image_id for row in file.annotations), where)
    label_of = labels_of(file.categories, file.annotations, where)
    _refuse_unknown(file, label_of, where)
    objects, notes = objects_by_image(file.annotations, by_id, files.filled(options.annotations))
    photos = None
    if options.photos:
        folder = DataFolder.find(root, options.photos, NEEDS_ON_DISK).path
        rows = {image.photo: len(objects[image.id]) for image in file.images}
        photos = Photos.find(folder, rows, options.absent, f"the photos of {where}: mend the option 'photos'")
        notes = photos.notes + notes
    contents = with_flat(files.contents, file.annotations)
    present = [image for image in file.images if photos is None or image.photo in photos.sizes]
    if photos is not None:
        refuse_other_sizes({photos.folder / one.photo: (one.width, one.height) for one in present}, str(where))
    here = PhotoColumns(photos, (image.id for image in present), (image.photo for image in present))
    image_of = here.image if photos is not None else _Unopened(here.ids).image
    things = ObjectColumns(
        ((image, objects[image.id]) for image in present), label_of, [_checked(image, label_of) for image in present]
    )
    return Examples(
        dataset="lvis",
        split=split,
        examples=LazyExamples.of({**here.columns(), **things.columns()}, image_of),
        classes=tuple(category.name for category in sorted(file.categories, key=lambda one: one.id)),
        category_ids=tuple(label_of),
        frequencies=tuple(category.frequency for category in sorted(file.categories, key=lambda one: one.id)),
        fingerprint=fingerprint(contents, {})
        if photos is None
        else photos.fingerprint(contents, {str(image.id): image.photo for image in present}),
        notes=notes,
    )


def _refuse_unknown(file: _File, label_of: Mapping[int, int], where: Path) -> None:
    named = {i for image in file.images for i in (*image.neg_category_ids, *image.not_exhaustive_category_ids)}
    unknown = sorted(named - label_of.keys())
    if unknown:
        listed = some([str(number) for number in unknown])
        raise UserError(f'{where} has images checked for category {listed}, which its "categories" lack: add it there.')


def _checked(image: _Image, label_of: Mapping[int, int]) -> Federated:
    return Federated(
        absent=frozenset(label_of[number] for number in image.neg_category_ids),
        not_exhaustive=frozenset(label_of[number] for number in image.not_exhaustive_category_ids),
    )


@dataclass(frozen=True)
class _Unopened:
    """Images that can be named and not opened."""

    ids: Sequence[str]

    def image(self, at: int) -> ImageItem:
        return ImageItem(self.ids[at], partial(_no_photo, self.ids[at]))


def _no_photo(item_id: str) -> Image.Image:
    raise UserError(
        f"The photo of {item_id} is not on disk, for the task's option photos is empty: score outputs with "
        "sparc-bench score, or name the folder of the photos in a card of your own."
    )
