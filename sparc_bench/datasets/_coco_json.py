"""COCO's JSON files: the tables "images", "annotations" and "categories", which several readers share."""

from __future__ import annotations

from array import array
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

import numpy as np
from jaxtyping import Bool
from numpy import ndarray
from pydantic import AfterValidator, BeforeValidator, Field, FiniteFloat

from sparc_bench.errors import UserError
from sparc_bench.files.annotations import AnyRows, CocoRow, DataFolder, decoded, read_json, repeated, some
from sparc_bench.files.boxes import CocoBox, outside_notes
from sparc_bench.files.run_lengths import RunLengths

COCO_SPLITS = {
    "train": "train",
    "val": "val",
    "test": "test",
    "train2014": "train",
    "val2014": "val",
    "train2017": "train",
    "val2017": "val",
}
"""Labels of splits in COCO's format: of other files in it, and of COCO itself."""


def _packed(polygons: list[list[float]]) -> list[Any]:
    return [array("d", points) for points in polygons]


Polygons = Annotated[list[list[FiniteFloat]], AfterValidator(_packed)]
"""Corners x, y, x, y ... of each polygon, as arrays: a quarter of the memory of lists."""


def _plain_number(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


ImageId = Annotated[str, Field(coerce_numbers_to_str=True), BeforeValidator(_plain_number)]
"""Id of an image: a string, so that 1, 1.0 and "1" in the tables of a file are the same image."""
AnyImage = TypeVar("AnyImage", bound="CocoImage")


class CocoImage(CocoRow):
    """An entry of "images"."""

    id: ImageId
    file_name: str


class SizedImage(CocoImage):
    """An entry of "images" that states its size."""

    width: int = Field(gt=0)
    height: int = Field(gt=0)


class CocoCaption(CocoRow):
    """An entry of a captions file's "annotations"."""

    image_id: ImageId
    caption: str


class CocoInstanceFile(CocoRow):
    """An instances file."""

    images: list[SizedImage]
    annotations: list[Annotation]
    categories: list[Category]


class CocoCaptionFile(CocoRow):
    """A captions file."""

    images: list[CocoImage]
    annotations: list[CocoCaption]


class Annotation(CocoRow):
    """An entry of an instances file's "annotations"."""

    id: ImageId
    image_id: ImageId
    category_id: int
    bbox: CocoBox
    area: float = Field(ge=0, allow_inf_nan=False)
    iscrowd: bool = False
    segmentation: RunLengths | Polygons = Field(default=[])


class Category(CocoRow):
    """An entry of an instances file's "categories"."""

    id: int
    name: str


@dataclass
class CocoFiles:
    """The JSON files of one split.

    Attributes:
        home: the folder that they lie in.
        split: stands for `{split}` in their names.
        contents: bytes of the files read so far, for the fingerprint.
    """

    home: DataFolder
    split: str
    contents: list[bytes] = field(default_factory=list)

    def path(self, name: str) -> Path:
        """Path of a file of the data set."""
        return self.home.path / self.filled(name)

    def filled(self, name: str) -> str:
        """The name with the split in it."""
        return name.replace("{split}", self.split)

    def read(self, form: type[AnyRows], name: str) -> AnyRows:
        """A file's tables; raises UserError where the file is missing or malformed."""
        self.contents.append(self.home.read(self.filled(name)))
        return read_json(form, self.contents[-1], self.path(name))

    def other_captions(self, name: str, here: Container[ImageId]) -> list[CocoCaption]:
        """The captions with a word in a further captions file, without those of the images `here`, in its order."""
        rows = self.read(CocoCaptionFile, name).annotations
        return [row for row in rows if row.image_id not in here and row.caption.strip()]


def images_by_id(images: Sequence[AnyImage], annotated: Iterable[ImageId], where: Path) -> dict[ImageId, AnyImage]:
    """Image id -> entry, in the file's order.

    Args:
        images: the file's "images".
        annotated: the image ids that its "annotations" name.
        where: the file, for the error.

    Raises:
        UserError: an id stands there twice, or an annotation is about an image that the file does not list.
    """
    by_id = {image.id: image for image in images}
    if len(by_id) != len(images):
        twice = some(repeated([image.id for image in images]))
        raise UserError(f'{where} lists image {twice} more than once: take the repeated entries of "images" out.')
    unknown = sorted({image_id for image_id in annotated if image_id not in by_id})
    if unknown:
        raise UserError(f'{where} has annotations of image {some(unknown)}, which its "images" lack: add or drop them.')
    return by_id


def captions_by_image(rows: Iterable[CocoCaption], images: Iterable[ImageId]) -> dict[ImageId, list[str]]:
    """The captions with a word of each of these images, in the file's order."""
    captions: dict[ImageId, list[str]] = {image_id: [] for image_id in images}
    for row in rows:
        if row.image_id in captions and row.caption.strip():
            captions[row.image_id].append(row.caption)
    return captions


def objects_by_image(
    rows: Sequence[Annotation], images: Mapping[ImageId, SizedImage], name: str
) -> tuple[dict[ImageId, list[Annotation]], tuple[str, ...]]:
    """The objects of each of these images, and notes about odd boxes.

    Objects whose box has no width or height stay: no detection can find them, and COCOeval counts them as missed.

    Raises:
        UserError: the boxes are not left, top, width and height in pixels.
    """
    objects: dict[ImageId, list[Annotation]] = {image_id: [] for image_id in images}
    flat = 0
    for row in rows:
        objects[row.image_id].append(row)
        flat += is_flat(row)
    notes = outside_notes(
        np.array([row.bbox for row in rows], dtype=np.float64).reshape(-1, 4),
        np.array([(one.width, one.height) for row in rows for one in [images[row.image_id]]]).reshape(-1, 2),
        name,
        lambda index: f"image {rows[index].image_id} (annotation {rows[index].id})",
    )
    if flat:
        notes = (
            f"{flat} objects of {name} have a box without width or height: they count, and are never found.",
            *notes,
        )
    return objects, notes


def is_flat(row: Annotation) -> bool:
    """Whether an object's box has no width or no height."""
    return row.bbox[2] <= 0 or row.bbox[3] <= 0


def with_flat(contents: Sequence[bytes], rows: Sequence[Annotation]) -> list[bytes]:
    """Contents for a data set's fingerprint; with flat boxes, which once were left out, it is another one."""
    return [*contents, *[b"objects without width or height count"] * any(map(is_flat, rows))]


def labels_of(categories: Sequence[Category], objects: Sequence[Annotation], where: Path) -> dict[int, int]:
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


def decode_mask(
    segmentation: RunLengths | Polygons, height: int, width: int, owner: str = "an image"
) -> Bool[ndarray, "H W"]:
    """The pixels of polygons (their union) or run lengths, by pycocotools; errors name the owner.

    Raises:
        UserError: a polygon of less than three points, run lengths of another size than the image, or what
            pycocotools refuses.
    """
    from pycocotools import mask as coco_mask

    try:
        if isinstance(segmentation, list):
            odd = [points for points in segmentation if len(points) < 6 or len(points) % 2]
            if odd:  # pycocotools would take two points for a box
                raise ValueError(f"a polygon has {len(odd[0])} numbers, not three points or more")
            lengths = coco_mask.merge(coco_mask.frPyObjects([list(points) for points in segmentation], height, width))
        elif isinstance(segmentation.counts, str):
            lengths = {"counts": segmentation.counts.encode(), "size": list(segmentation.size)}
        else:
            lengths = coco_mask.frPyObjects(
                {"counts": segmentation.counts, "size": list(segmentation.size)}, *segmentation.size
            )
        mask: ndarray = coco_mask.decode(lengths)
    except Exception as error:
        raise UserError(
            f"The mask of {owner} cannot be decoded ({error}): mend its segmentation in the instances file."
        ) from error
    if mask.shape != (height, width):
        raise UserError(
            f"A mask of {mask.shape[0]} x {mask.shape[1]} pixels belongs to {owner} of {height} x {width}: "
            "mend its size in the instances file."
        )
    return mask.astype(np.bool_)


def read_synonyms(content: bytes, where: Path, classes: Sequence[str]) -> dict[str, str]:
    """CHAIR's list: word -> the head of its row; a row is `head, word, two words, ...`.

    Captions are compared in lower case: a word with a capital ("iPhone") is never found, as by the official code.

    Raises:
        UserError: a word of two classes, or a class without a row.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(decoded(content, where).splitlines(), start=1):
        words = [word.strip() for word in line.split(",") if word.strip()]
        words = words[:1] + [word for word in words[1:] if word == word.lower()]
        for word in words:
            if found.setdefault(word, words[0]) != words[0]:
                raise UserError(f"{where} has '{word}' for {found[word]} and, in line {number}, {words[0]}: keep one.")
    strange = [label for label in classes if found.get(label) != label]
    if strange:
        raise UserError(f"{where} has no row for {some(strange)}: copy CHAIR's own file.")
    return found
