"""POPE: questions about the presence of objects in photos of COCO.

Each of 500 photos of val2014 has six questions, three about present and three about absent objects. Absent objects are
random ("random"), the most frequent ones ("popular"), or those that co-occur most often with the present objects
("adversarial"). Photos are used as decoded, without applying their EXIF orientation, as is usual in the field.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, TypeAdapter, ValidationError

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Example, Examples
from sparc_bench.datasets._photos import Photos, coco_photo
from sparc_bench.errors import UserError
from sparc_bench.facets import Objects
from sparc_bench.files.annotations import Absent, CocoRow, DataFolder, decoded, known_split

TITLE = "POPE: is the named object in the photo? Six questions on each of 500 photos of COCO"
SOURCE = (
    "Li et al. 2023, Evaluating Object Hallucination in Large Vision-Language Models (arXiv:2305.10355), RUCAIBox/POPE"
)
NEEDS_ON_DISK = (
    "pope/ with coco_pope_random.json, coco_pope_popular.json, coco_pope_adversarial.json, and the photos in "
    "coco/val2014/ (the options folder and photos name other places)"
)
PROVIDES = frozenset({"objects"})
SPLITS = {"random": "test", "popular": "test", "adversarial": "test"}


class Options(Strict):
    """Folders of the questions and of the photos."""

    folder: str = Field(default="pope", description="folder of the questions, under the data root")
    photos: str = Field(default="coco/val2014", description="folder of the photos, under the data root")
    names: Literal[2014, 2017] = Field(
        default=2014,
        description="file names of the photos: 2014 (COCO_val2014_ and twelve digits) or 2017 (digits alone)",
    )
    absent: Absent = Field(default="refuse", description="questions whose photo is not on disk: refuse or skip")


class _Question(CocoRow):
    image: str
    text: str
    label: Literal["yes", "no"]


_ROW = TypeAdapter(_Question)
_TEXT = re.compile(r"Is there an? (.+) in the image\?")
_FILE = re.compile(r"COCO_val2014_(\d{12})\.jpg")


def read(root: Path | None, split: str, options: Options) -> Examples:
    """The photos of a split's file in its order, with the facet `Objects` in its order.

    `classes` are the objects of the questions in alphabetical order; an id is COCO's image id. `sizes` counts the
    `questions` and those with the answer `yes`.

    Raises:
        UserError: a file is missing or malformed.
    """
    known_split(split, SPLITS, "pope")
    home = DataFolder.find(root, options.folder, NEEDS_ON_DISK)
    assert root is not None
    name = f"coco_pope_{split}.json"
    content = home.read(name)
    asked = _asked(content, home.path / name)
    folder = DataFolder(root, NEEDS_ON_DISK).folder(options.photos, options.absent)
    file_of = {photo: photo if options.names == 2014 else f"{_number(photo)}.jpg" for photo in asked}
    rows = {file_of[photo]: len(objects) for photo, objects in asked.items()}
    what = f"the photos of {home.path / name}: mend the options photos and names"
    photos = Photos.find(folder, rows, options.absent, what)
    present = {photo: objects for photo, objects in asked.items() if file_of[photo] in photos.sizes}
    ids = {photo: str(int(_number(photo))) for photo in present}
    return Examples(
        dataset="pope",
        split=split,
        examples=tuple(
            Example(
                id=ids[photo],
                image=photos.item(ids[photo], file_of[photo]),
                photo=coco_photo(photo),
                facets=(Objects(objects),),
            )
            for photo, objects in present.items()
        ),
        classes=tuple(sorted({name for objects in present.values() for name in objects})),
        fingerprint=photos.fingerprint([content], {ids[photo]: file_of[photo] for photo in present}),
        notes=photos.notes,
        sizes={
            "questions": sum(len(objects) for objects in present.values()),
            "yes": sum(sum(objects.values()) for objects in present.values()),
        },
    )


def _asked(content: bytes, where: Path) -> dict[str, dict[str, bool]]:
    """Photo -> object -> whether the answer is yes."""
    asked: dict[str, dict[str, bool]] = {}
    for number, line in enumerate(decoded(content, where).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = _ROW.validate_json(line)
        except ValidationError as error:
            reason = error.errors(include_url=False)[0]["msg"]
            raise UserError(f"{where} has no question at line {number} ({reason}): mend or copy it again.") from None
        found = _TEXT.fullmatch(row.text)
        if found is None or _FILE.fullmatch(row.image) is None:
            raise UserError(
                f"{where} asks {row.text!r} of {row.image} at line {number}, not 'Is there a THING in the image?' of a "
                "photo of val2014: copy POPE's own file again."
            )
        objects = asked.setdefault(row.image, {})
        if found[1] in objects:
            raise UserError(f"{where} asks twice for '{found[1]}' in {row.image}: take line {number} out.")
        objects[found[1]] = row.label == "yes"
    return asked


def _number(photo: str) -> str:
    return photo.removeprefix("COCO_val2014_").removesuffix(".jpg")
