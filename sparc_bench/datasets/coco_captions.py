"""Any COCO-format captions file with a folder of photos.

The split is a label: it fills `{split}` in the options' paths, so that COCO as its owners ship it needs no options but
the split ("val2017"), and any other file is named outright. Photos are used as decoded: an EXIF orientation is not
applied, as in the field's own tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from sparc_bench.cards.bounds import Count
from sparc_bench.cards.card import Extended
from sparc_bench.dataset import Examples, LazyExamples
from sparc_bench.datasets._coco_columns import PhotoColumns, TextLists
from sparc_bench.datasets._coco_json import (
    COCO_SPLITS,
    CocoCaptionFile,
    CocoFiles,
    ImageId,
    captions_by_image,
    images_by_id,
)
from sparc_bench.datasets._photos import Photos
from sparc_bench.files.annotations import Absent, DataFolder, known_split, some

TITLE = "COCO captions, or any captions file in COCO's format: photos with about five captions each"
SOURCE = "Chen et al. 2015, Microsoft COCO Captions (arXiv:1504.00325); Lin et al. 2014 (arXiv:1405.0312)"
NEEDS_ON_DISK = (
    "coco/ with annotations/captions_SPLIT.json and SPLIT/*.jpg, such as val2017 "
    "(the options folder, annotations and images name other places)"
)
PROVIDES = frozenset({"captions", "several_captions", "pool"})
SPLITS = COCO_SPLITS


class Options(Extended):
    """Files of the data set; `{split}` in a path stands for the split's name."""

    folder: str = Field(default="coco", description="folder of the data set, under the data root")
    annotations: str = Field(default="annotations/captions_{split}.json", description="captions file, in the folder")
    images: str = Field(default="{split}", description="folder of the photos, in the folder")
    pool: str = Field(
        default="", description="captions file with further candidate captions, of other images; empty: none"
    )
    tuning: str = Field(
        default="", description="captions file of other images, to choose the constant caption on; empty: none"
    )
    captions_per_image: Count = Field(default=0, description="first captions of each image to keep; 0: all")
    absent: Absent = Field(default="refuse", description="annotated images that are not on disk: refuse or skip")

    FORMER: ClassVar[Mapping[str, Any]] = {"tuning": ""}


def read(root: Path | None, split: str, options: Options) -> Examples:
    """One captions file, images in its order and each image's captions in its order; ids are COCO's image ids.

    The pool holds the captions of every image of the pool file that is not an example here (images are told by COCO's
    id), so that examples and pool together hold each caption once. Captions are kept as written, outer spaces and all;
    those without a word are left out, so are images without captions, and `notes` counts both.

    Raises:
        UserError: something is missing or malformed on disk.
    """
    known_split(split, SPLITS, "coco_captions")
    files = CocoFiles(DataFolder.find(root, options.folder, NEEDS_ON_DISK), split)
    name, where = files.filled(options.annotations), files.path(options.annotations)
    file = files.read(CocoCaptionFile, options.annotations)
    folder = files.home.folder(files.filled(options.images), options.absent)
    by_id = images_by_id(file.images, (row.image_id for row in file.annotations), where)
    captions = captions_by_image(file.annotations, by_id)
    file_of = {image_id: image.file_name for image_id, image in by_id.items() if captions[image_id]}
    photos = Photos.find(
        folder,
        {file_name: len(captions[image_id]) for image_id, file_name in file_of.items()},
        options.absent,
        f"the captioned photos of {where}: mend the option 'images'",
    )
    notes = photos.notes
    blank = len(file.annotations) - sum(map(len, captions.values()))
    if blank:
        notes += (f"{blank} captions of {name} hold no word and are left out.",)
    if len(file_of) < len(by_id):
        bare = [image.file_name for image_id, image in by_id.items() if image_id not in file_of]
        notes += (f"{len(bare)} of {len(by_id)} images of {name} have no captions, left out: {some(bare)}.",)
    present = {image_id: file_name for image_id, file_name in file_of.items() if file_name in photos.sizes}

    pool = files.other_captions(options.pool, present) if options.pool else []
    tuning: dict[ImageId, list[str]] = {}
    for row in files.other_captions(options.tuning, present) if options.tuning else []:
        tuning.setdefault(row.image_id, []).append(row.caption)
    first = options.captions_per_image or None
    here = PhotoColumns(photos, present, present.values())
    texts = TextLists(captions[image_id][:first] for image_id in present)
    return Examples(
        dataset="coco_captions",
        split=split,
        examples=LazyExamples.of({**here.columns(), "captions": texts.column()}, here.image),
        fingerprint=photos.fingerprint(files.contents, {str(image_id): name for image_id, name in present.items()}),
        pool=tuple(row.caption for row in pool),
        tuning=tuple(map(tuple, tuning.values())),
        notes=notes,
    )
