"""Any COCO-format captions file with a folder of photos.

The split is a label: it fills `{split}` in the options' paths, so that COCO as its owners ship it needs no options but
the split ("val2017"), and any other file is named outright. Photos are used as decoded: an EXIF orientation is not
applied, as in the field's own tools.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import DataSplit, Example
from sparc_bench.datasets._photo_names import coco_photo
from sparc_bench.errors import UserError
from sparc_bench.files.annotations import (
    COCO_SPLITS,
    Absent,
    CocoCaptionFile,
    DataFolder,
    absent_notes,
    coco_images,
    file_sizes,
    fingerprint,
    known_split,
    read_json,
    some,
)
from sparc_bench.images.item import ImageItem

TITLE = "COCO captions, or any captions file in COCO's format: photos with about five captions each"
SOURCE = "Chen et al. 2015, Microsoft COCO Captions (arXiv:1504.00325); Lin et al. 2014 (arXiv:1405.0312)"
NEEDS_ON_DISK = (
    "coco/ with annotations/captions_SPLIT.json and SPLIT/*.jpg, such as val2017 "
    "(the options folder, annotations and images name other places)"
)
PROVIDES = frozenset({"captions", "several_captions", "pool"})
SPLITS = COCO_SPLITS


class Options(Strict):
    """Which files to read; `{split}` in a path stands for the split."""

    folder: str = Field(default="coco", description="under the data root")
    annotations: str = Field(default="annotations/captions_{split}.json", description="in the folder")
    images: str = Field(default="{split}", description="folder of the photos, in the folder")
    pool: str = Field(default="", description="captions file whose captions of other images fill the pool, or none")
    tuning: str = Field(default="", description="captions file on whose other images is chosen what must be, or none")
    captions_per_image: int = Field(default=0, ge=0, description="the first so many of each image; 0: all")
    absent: Absent = Field(default="refuse", description="rows of photos that are not on disk: refuse or skip")

    @model_serializer(mode="wrap")
    def _later_options_where_set(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """An option that came later enters hashes only where it changes what is read."""
        values: dict[str, Any] = handler(self)
        if not self.tuning:
            values.pop("tuning", None)
        return values


def read(root: Path | None, split: str, options: Options) -> DataSplit:
    """One captions file, images in its order and each image's captions in its order; ids are COCO's image ids.

    The pool holds the captions of every image of the pool file that is not an example here (images are told by COCO's
    id), so that examples and pool together hold each caption once. Captions are kept as written, outer spaces and all;
    those without a word are left out, so are images without captions, and `notes` counts both.

    Raises:
        UserError: something is missing or malformed on disk.
    """
    known_split(split, SPLITS, "coco_captions")
    home = DataFolder.find(root, options.folder, NEEDS_ON_DISK)
    name = options.annotations.replace("{split}", split)
    content = home.read(name)
    file = read_json(CocoCaptionFile, content, home.path / name)
    folder = home.folder(options.images.replace("{split}", split))
    by_id = coco_images(file.images, (row.image_id for row in file.annotations), home.path / name)

    captions: dict[int | str, list[str]] = {image_id: [] for image_id in by_id}
    blank = 0
    for row in file.annotations:
        if row.caption.strip():
            captions[row.image_id].append(row.caption)
        else:
            blank += 1
    captioned = {image_id: image for image_id, image in by_id.items() if captions[image_id]}
    rows = {image.file_name: len(captions[image_id]) for image_id, image in captioned.items()}
    sizes = file_sizes(folder, rows)
    notes = absent_notes(rows, sizes, folder, options.absent)
    if blank:
        notes += (f"{blank} captions of {name} hold no word and are left out.",)
    if len(captioned) < len(by_id):
        bare = [image.file_name for image_id, image in by_id.items() if image_id not in captioned]
        notes += (f"{len(bare)} of {len(by_id)} images of {name} have no captions, left out: {some(bare)}.",)
    present = {image_id: image for image_id, image in captioned.items() if image.file_name in sizes}
    if not present:
        raise UserError(f"{folder} has none of the captioned photos of {home.path / name}: mend the option 'images'.")

    contents = [content]
    pool: tuple[str, ...] = ()
    if options.pool:
        pool_name = options.pool.replace("{split}", split)
        contents.append(home.read(pool_name))
        pool_rows = read_json(CocoCaptionFile, contents[-1], home.path / pool_name).annotations
        pool = tuple(row.caption for row in pool_rows if row.image_id not in present and row.caption.strip())
    tuning: dict[int | str, list[str]] = {}
    if options.tuning:
        tuning_name = options.tuning.replace("{split}", split)
        contents.append(home.read(tuning_name))
        for row in read_json(CocoCaptionFile, contents[-1], home.path / tuning_name).annotations:
            if row.image_id not in present and row.caption.strip():
                tuning.setdefault(row.image_id, []).append(row.caption)
    first = options.captions_per_image or None
    return DataSplit(
        dataset="coco_captions",
        split=split,
        examples=tuple(
            Example(
                id=str(image_id),
                image=ImageItem.file(str(image_id), folder / image.file_name),
                captions=tuple(captions[image_id][:first]),
                photo=coco_photo(image.file_name),
            )
            for image_id, image in present.items()
        ),
        fingerprint=fingerprint(
            contents, {str(image_id): sizes[image.file_name] for image_id, image in present.items()}
        ),
        pool=pool,
        tuning=tuple(tuple(texts) for texts in tuning.values()),
        notes=notes,
    )
