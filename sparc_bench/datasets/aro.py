"""ARO (Attribution, Relation, Order): captions with swapped relations, swapped attributes or shuffled words.

The splits `vg_relation` and `vg_attribution` are the official files about boxes in Visual Genome photos; an image is
first cropped to its box. For `coco_order` and `flickr_order` the official code draws four shuffled captions at run
time, by random numbers, spaCy's tags and NLTK's words, so that no two draws are the same benchmark. This reader takes
a stored draw, the `test_cases` of that code as a JSON list of
{"image": "val2014/COCO_val2014_000000391895.jpg", "caption_options": [the true caption, four shuffled ones]},
and draws nothing itself.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import Field, RootModel

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Examples
from sparc_bench.datasets._photo_items import PhotoItem, photo_split
from sparc_bench.datasets._photos import flickr_photo
from sparc_bench.errors import UserError
from sparc_bench.files.annotations import Absent, CocoRow, DataFolder, known_split, read_json

TITLE = "ARO: relations and attributes in parts of Visual Genome photos, and the order of words in COCO and Flickr30k"
SOURCE = "Yuksekgonul et al. 2023, When and why VLMs behave like bags-of-words (arXiv:2210.01936), official repository"
NEEDS_ON_DISK = (
    "aro/ with visual_genome_relation.json, visual_genome_attribution.json and images/*.jpg; for the order tasks "
    "coco_order.json or flickr_order.json (test_cases of the official code) with the photos coco/val2014 or "
    "flickr30k/images"
)
PROVIDES = frozenset({"captions", "negatives"})
SPLITS = dict.fromkeys(("vg_relation", "vg_attribution", "coco_order", "flickr_order"), "test")

_FILES = {
    "vg_relation": "visual_genome_relation.json",
    "vg_attribution": "visual_genome_attribution.json",
    "coco_order": "coco_order.json",
    "flickr_order": "flickr_order.json",
}
_PHOTOS = {"coco_order": "coco/val2014", "flickr_order": "flickr30k/images"}

ORDER_WORDS = 30
"""Words to which the order tasks cut a caption."""
_DROPPED = re.compile(r'[.!"()*#:;~]')


class Options(Strict):
    """Files of the benchmark."""

    folder: str = Field(default="aro", description="folder of the data set, under the data root")
    annotations: str = Field(default="", description="file of the cases, in the folder; empty: named by the split")
    photos: str = Field(
        default="", description="folder of the photos, under the data root; empty: aro/images, or the order task's own"
    )
    absent: Absent = Field(default="refuse", description="items whose photo is not on disk: refuse or skip")


class _Case(CocoRow):
    image_path: str
    bbox_x: int
    bbox_y: int
    bbox_w: Annotated[int, Field(gt=0)]
    bbox_h: Annotated[int, Field(gt=0)]
    true_caption: str
    false_caption: str
    relation_name: str = ""
    attributes: tuple[str, ...] = ()


class _Cases(RootModel[list[_Case]]):
    """The cases of vg_relation or vg_attribution."""


class _Order(CocoRow):
    image: str
    caption_options: Annotated[tuple[str, ...], Field(min_length=2)]


class _Orders(RootModel[list[_Order]]):
    """The cases of an order task."""


def read(root: Path | None, split: str, options: Options) -> Examples:
    """All cases in the file's order, with ids such as `vg_relation/12`.

    The tag `relation` holds the relation of a case of vg_relation, the tag `attributes` both attributes of a case of
    vg_attribution, as in `open_brown`; their captions are unchanged. Captions of the order tasks are in lower case,
    without the marks .!"()*#:;~ and cut to 30 words, as in the official code.

    Raises:
        UserError: a file is missing or malformed.
    """
    known_split(split, SPLITS, "aro")
    home = DataFolder.find(root, options.folder, NEEDS_ON_DISK)
    assert root is not None
    name = options.annotations or _FILES[split]
    photos = options.photos or _PHOTOS.get(split, f"{options.folder}/images")
    if split in _PHOTOS:
        if not (home.path / name).is_file():
            raise UserError(
                f"{home.path / name} does not exist: ARO's order tasks need a stored draw of shuffled captions; run "
                "the official code once and save its test_cases (image, caption_options) there as JSON."
            )
        content = home.read(name)
        items = _order_items(read_json(_Orders, content, home.path / name).root, split, photos)
        return photo_split("aro", split, root, items, [content], options.absent)
    content = home.read(name)
    items = _part_items(read_json(_Cases, content, home.path / name).root, split, photos)
    return photo_split("aro", split, root, items, [content], options.absent)


def order_caption(text: str) -> str:
    """Caption in the form of the order tasks (idempotent).

    >>> order_caption("A man (left)  rides.")
    'a man left rides'
    """
    plain = re.sub(r"\s{2,}", " ", _DROPPED.sub(" ", text.lower())).strip(" \n")
    return " ".join(plain.split(" ")[:ORDER_WORDS])


def _part_items(cases: list[_Case], split: str, photos: str) -> list[PhotoItem]:
    items = []
    for index, case in enumerate(cases):
        tags = {"relation": case.relation_name}
        if split == "vg_attribution":
            tags = {"attributes": "_".join(case.attributes)}
        if not all(tags.values()):
            raise UserError(
                f"Case {index} of {split} says no {next(iter(tags))}: it is another split's file, replace it."
            )
        box = (case.bbox_x, case.bbox_y, case.bbox_x + case.bbox_w, case.bbox_y + case.bbox_h)
        items.append(
            PhotoItem(
                id=f"{split}/{index}",
                file=f"{photos}/{case.image_path}",
                captions=(case.true_caption,),
                negatives=(case.false_caption,),
                tags=tags,
                window=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
            )
        )
    return items


def _order_items(cases: list[_Order], split: str, photos: str) -> list[PhotoItem]:
    return [
        PhotoItem(
            id=f"{split}/{index}",
            file=f"{photos}/{PurePosixPath(case.image).name}",
            captions=(order_caption(case.caption_options[0]),),
            negatives=tuple(order_caption(text) for text in case.caption_options[1:]),
            photo=flickr_photo(case.image) if split == "flickr_order" else "",
        )
        for index, case in enumerate(cases)
    ]
