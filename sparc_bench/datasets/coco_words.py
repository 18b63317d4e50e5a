"""COCO photos with objects, captions and the words for these objects, in two halves: to choose on, and to report.

The annotated images in order of their ids, in turn: the first, third, ... are `val`, on which settings may be chosen,
the others `test`. Photos are used as decoded: an EXIF orientation is not applied, as in the field's own tools.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Examples, LazyExamples
from sparc_bench.datasets._coco_columns import TextLists, photos_with_objects
from sparc_bench.datasets._coco_json import (
    CocoCaptionFile,
    CocoFiles,
    CocoInstanceFile,
    captions_by_image,
    images_by_id,
    labels_of,
    objects_by_image,
    read_synonyms,
    with_flat,
)
from sparc_bench.files.annotations import Absent, DataFolder, known_split

TITLE = "COCO photos with objects, captions and the words for these objects, in two halves (word grounding)"
SOURCE = (
    "Lin et al. 2014 (arXiv:1405.0312), Chen et al. 2015 (arXiv:1504.00325); synonyms: Rohrbach et al. 2018 "
    "(arXiv:1809.02156), LisaAnne/Hallucination data/synonyms.txt"
)
NEEDS_ON_DISK = (
    "coco/ with annotations/captions_val2017.json, annotations/instances_val2017.json and val2017/*.jpg; "
    "chair/synonyms.txt (the options folder, captions, instances, images and synonyms name other places)"
)
PROVIDES = frozenset({"captions", "several_captions", "boxes", "masks", "pixel_size", "synonyms"})
SPLITS = {"val": "val", "test": "test"}


class Options(Strict):
    """Files of the data set, of which `val` and `test` are halves."""

    folder: str = Field(default="coco", description="folder of the data set, under the data root")
    captions: str = Field(default="annotations/captions_val2017.json", description="captions file, in the folder")
    instances: str = Field(default="annotations/instances_val2017.json", description="instances file, in the folder")
    images: str = Field(default="val2017", description="folder of the photos, in the folder")
    synonyms: str = Field(default="chair/synonyms.txt", description="CHAIR's list of synonyms, under the data root")
    absent: Absent = Field(default="refuse", description="annotated images that are not on disk: refuse or skip")


def read(root: Path | None, split: str, options: Options) -> Examples:
    """Every second image of the instances file, in the order of the ids, with its objects and its captions.

    Objects are as `coco_instances` has them, synonyms as `coco_objects`. An image without captions has none.

    Raises:
        UserError: something is missing or malformed on disk, or a category has no row of synonyms.
    """
    known_split(split, SPLITS, "coco_words")
    home = DataFolder.find(root, options.folder, NEEDS_ON_DISK)
    assert root is not None
    files = CocoFiles(home, split)
    where = files.path(options.instances)
    file = files.read(CocoInstanceFile, options.instances)
    captioned = files.read(CocoCaptionFile, options.captions)
    images_by_id(captioned.images, (row.image_id for row in captioned.annotations), files.path(options.captions))
    names = [category.name for category in sorted(file.categories, key=lambda category: category.id)]
    files.contents.append(DataFolder(root, NEEDS_ON_DISK).read(options.synonyms))
    synonyms = read_synonyms(files.contents[-1], root / options.synonyms, names)

    annotated = images_by_id(file.images, (row.image_id for row in file.annotations), where)
    label_of = labels_of(file.categories, file.annotations, where)
    # ids are numbers without leading zeros as a rule: shorter ones are smaller
    half = sorted(annotated, key=lambda image_id: (len(image_id), image_id))[split == "test" :: 2]
    by_id = {image_id: annotated[image_id] for image_id in half}
    rows_here = [row for row in file.annotations if row.image_id in by_id]
    objects, box_notes = objects_by_image(rows_here, by_id, options.instances)
    captions = captions_by_image(captioned.annotations, by_id)
    folder = home.folder(options.images, options.absent)
    here = photos_with_objects(folder, options.absent, by_id, objects, label_of, where)
    texts = TextLists(captions[image_id] for image_id in here.present)
    return Examples(
        dataset="coco_words",
        split=split,
        examples=LazyExamples.of({**here.columns, "captions": texts.column()}, here.image),
        classes=tuple(names),
        category_ids=tuple(label_of),
        synonyms=synonyms,
        fingerprint=here.photos.fingerprint(
            with_flat(files.contents, rows_here),
            {str(image_id): image.file_name for image_id, image in here.present.items()},
        ),
        notes=here.photos.notes + box_notes,
    )
