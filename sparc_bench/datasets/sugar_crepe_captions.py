"""SugarCrepe: a true and a fluent false caption of a COCO photo that differ in one object, attribute or relation.

The data are seven official files. Every item is an example (`swap_obj/12`, the official key); a photo has about five.
Captions are unchanged, leading and trailing spaces included, as in the official code.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, RootModel

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Examples
from sparc_bench.datasets._photo_items import PhotoItem, photo_split, read_groups
from sparc_bench.files.annotations import Absent, CocoRow, DataFolder, known_split

TITLE = "SugarCrepe: 7,511 pairs of a true and a false caption of COCO val2017 photos, in seven groups"
SOURCE = "Hsieh et al. 2023, SugarCrepe (arXiv:2306.14610), files of RAIVNLab/sugar-crepe; photos Lin et al. 2014"
NEEDS_ON_DISK = "sugar_crepe/data/ with the seven files such as swap_obj.json, and COCO's photos coco/val2017/*.jpg"
PROVIDES = frozenset({"captions", "negatives"})
SPLITS = {"test": "test"}

GROUPS = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")


class Options(Strict):
    """Folders of the benchmark."""

    folder: str = Field(default="sugar_crepe", description="folder of the data set, under the data root")
    annotations: str = Field(default="data", description="folder of the seven files, in the folder")
    photos: str = Field(default="coco/val2017", description="folder of the photos, under the data root")
    absent: Absent = Field(default="refuse", description="items whose photo is not on disk: refuse or skip")


class _Item(CocoRow):
    filename: str
    caption: str
    negative_caption: str


class _Group(RootModel[dict[str, _Item]]):
    """Official key -> item."""


def read(root: Path | None, split: str, options: Options) -> Examples:
    """All items in the order of `GROUPS`; the tag `group` names an item's group.

    Raises:
        UserError: a file is missing or malformed.
    """
    known_split(split, SPLITS, "sugar_crepe_captions")
    home = DataFolder.find(root, options.folder, NEEDS_ON_DISK)
    assert root is not None
    rows_of, contents = read_groups(home, options.annotations, GROUPS, _Group)
    items = [
        PhotoItem(
            id=f"{group}/{key}",
            file=f"{options.photos}/{row.filename}",
            captions=(row.caption,),
            negatives=(row.negative_caption,),
            tags={"group": group},
        )
        for group, rows in rows_of.items()
        for key, row in rows.root.items()
    ]
    return photo_split("sugar_crepe_captions", split, root, items, contents, options.absent, counted="group")
