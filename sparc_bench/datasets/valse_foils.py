"""VALSE: a caption and a foil of a photo, in eleven pieces about existence, plurals, counting, relations and more.

The data are eleven official files. As in the benchmark, only items are kept that at least two of three annotators
validated (by choosing the caption and not the foil). The photos come from five data sets.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, RootModel

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Examples
from sparc_bench.datasets._photo_items import PhotoItem, photo_split, read_groups
from sparc_bench.errors import UserError
from sparc_bench.files.annotations import Absent, CocoRow, DataFolder, known_split

TITLE = "VALSE: 7,702 validated pairs of a caption and a foil, in eleven pieces"
SOURCE = "Parcalabescu et al. 2022, VALSE (ACL 2022, arXiv:2112.07566), files of Heidelberg-NLP/VALSE"
NEEDS_ON_DISK = (
    "valse/data/ with the eleven files such as existence.json, and photos: coco/val2017, coco/train2014, coco/val2014, "
    "visual7w/images, swig/images_512, visdial/VisualDialog_val2018"
)
PROVIDES = frozenset({"captions", "negatives"})
SPLITS = {"test": "test"}

PIECES = (
    *("existence", "plurals", "counting-hard", "counting-small-quant", "counting-adversarial", "relations"),
    *("action-replacement", "actant-swap", "coreference-standard", "coreference-hard", "foil-it"),
)
VOTES = 2
"""Smallest number of annotators, of three, who chose the caption and not the foil."""


class Options(Strict):
    """Folders of the benchmark; those of photos are under the data root."""

    folder: str = Field(default="valse", description="folder of the data set, under the data root")
    annotations: str = Field(default="data", description="folder of the eleven files, in the folder")
    coco_val2017: str = Field(default="coco/val2017", description="photos of plurals and relations")
    coco_train2014: str = Field(default="coco/train2014", description="photos of coreference-standard")
    coco_val2014: str = Field(default="coco/val2014", description="photos of foil-it and coreference-standard")
    visual7w: str = Field(default="visual7w/images", description="photos of existence and counting (v7w_*.jpg)")
    swig: str = Field(default="swig/images_512", description="photos of action-replacement and actant-swap")
    visdial_val2018: str = Field(
        default="visdial/VisualDialog_val2018", description="photos of coreference-hard (VisualDialog_val2018_*.jpg)"
    )
    absent: Absent = Field(default="refuse", description="items whose photo is not on disk: refuse or skip")


class _Votes(CocoRow):
    caption: int


class _Item(CocoRow):
    dataset: str
    image_file: str
    caption: str
    foil: str
    mturk: _Votes


class _Piece(RootModel[dict[str, _Item]]):
    """Official key -> item."""


def read(root: Path | None, split: str, options: Options) -> Examples:
    """The validated items (`existence/KEY`) in the order of `PIECES`; the tag `piece` names an item's piece.

    Raises:
        UserError: a file is missing or malformed.
    """
    known_split(split, SPLITS, "valse_foils")
    home = DataFolder.find(root, options.folder, NEEDS_ON_DISK)
    assert root is not None
    rows_of, contents = read_groups(home, options.annotations, PIECES, _Piece)
    items = [
        PhotoItem(
            id=f"{piece}/{key}",
            file=f"{_photos(row, options, home.path / options.annotations / f'{piece}.json')}/{row.image_file}",
            captions=(row.caption,),
            negatives=(row.foil,),
            tags={"piece": piece},
        )
        for piece, rows in rows_of.items()
        for key, row in rows.root.items()
        if row.mturk.caption >= VOTES
    ]
    return photo_split("valse_foils", split, root, items, contents, options.absent, counted="piece")


def _photos(row: _Item, options: Options, where: Path) -> str:
    """Folder of an item's photo, by the item's data set and the prefix of the file name."""
    if row.image_file.startswith("COCO_train2014_"):
        return options.coco_train2014
    if row.image_file.startswith("COCO_val2014_"):
        return options.coco_val2014
    folders = {
        "coco2017": options.coco_val2017,
        "coco_2017": options.coco_val2017,
        "visual7w": options.visual7w,
        "SWiG": options.swig,
        "VisDial_v1.0": options.visdial_val2018,
    }
    if row.dataset not in folders:
        raise UserError(f"{where} has a photo of '{row.dataset}', which VALSE does not: copy the file again.")
    return folders[row.dataset]
