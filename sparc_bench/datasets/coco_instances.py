"""Any COCO-format instances file with a folder of photos: boxes, classes and masks of objects.

The split is a label that fills `{split}` in the options' paths. Photos are used as decoded: an EXIF orientation is not
applied, as in the field's own tools and as the annotations want it.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Examples, LazyExamples
from sparc_bench.datasets._coco_columns import photos_with_objects
from sparc_bench.datasets._coco_json import (
    COCO_SPLITS,
    CocoFiles,
    CocoInstanceFile,
    images_by_id,
    labels_of,
    objects_by_image,
    with_flat,
)
from sparc_bench.files.annotations import Absent, DataFolder, known_split

TITLE = "COCO instances, or any instances file in COCO's format: boxes, classes and masks of objects"
SOURCE = "Lin et al. 2014, Microsoft COCO: Common Objects in Context (arXiv:1405.0312)"
NEEDS_ON_DISK = (
    "coco/ with annotations/instances_SPLIT.json and SPLIT/*.jpg, such as val2017 "
    "(the options folder, annotations and images name other places)"
)
PROVIDES = frozenset({"boxes", "masks", "pixel_size"})
SPLITS = COCO_SPLITS


class Options(Strict):
    """Files of the data set; `{split}` in a path stands for the split's name."""

    folder: str = Field(default="coco", description="folder of the data set, under the data root")
    annotations: str = Field(default="annotations/instances_{split}.json", description="instances file, in the folder")
    images: str = Field(default="{split}", description="folder of the photos, in the folder")
    absent: Absent = Field(default="refuse", description="annotated images that are not on disk: refuse or skip")


def read(root: Path | None, split: str, options: Options) -> Examples:
    """One instances file, images and objects in its order; ids are COCO's image ids.

    Labels count the categories from 0 in order of their ids. Boxes are left, top, right, bottom; `area` is the file's
    own (of the mask). Images without objects stay, and so do objects whose box has no width or height, which are
    counted in `notes`. Examples have the facet `PixelSize`.

    Raises:
        UserError: something is missing or malformed on disk.
    """
    known_split(split, SPLITS, "coco_instances")
    files = CocoFiles(DataFolder.find(root, options.folder, NEEDS_ON_DISK), split)
    where = files.path(options.annotations)
    file = files.read(CocoInstanceFile, options.annotations)
    folder = files.home.folder(files.filled(options.images), options.absent)
    by_id = images_by_id(file.images, (row.image_id for row in file.annotations), where)
    label_of = labels_of(file.categories, file.annotations, where)
    objects, box_notes = objects_by_image(file.annotations, by_id, files.filled(options.annotations))
    here = photos_with_objects(folder, options.absent, by_id, objects, label_of, where)
    return Examples(
        dataset="coco_instances",
        split=split,
        examples=LazyExamples.of(here.columns, here.image),
        classes=tuple(category.name for category in sorted(file.categories, key=lambda category: category.id)),
        category_ids=tuple(label_of),
        fingerprint=here.photos.fingerprint(
            with_flat(files.contents, file.annotations),
            {str(image_id): image.file_name for image_id, image in here.present.items()},
        ),
        notes=here.photos.notes + box_notes,
    )
