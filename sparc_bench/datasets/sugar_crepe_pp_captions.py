"""SugarCrepe++: two true captions of a COCO photo in different words, and a false one close in words to the first.

The data are five official files. Every item is an example (`swap_obj/12`, the official id); a photo can have several.
Captions are unchanged. In two items of swap_obj the false caption equals the first true one, so that under the official
rule (ties lose) no model scores above .9918 there.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, RootModel

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Examples
from sparc_bench.datasets._photo_items import PhotoItem, photo_split, read_groups
from sparc_bench.files.annotations import Absent, CocoRow, DataFolder, known_split

TITLE = "SugarCrepe++: 4,757 triplets of two true captions and a false one of COCO val2017 photos, in five groups"
SOURCE = "Dumpala et al. 2024, SugarCrepe++ (arXiv:2406.11171), files of Sri-Harsha/scpp; photos Lin et al. 2014"
NEEDS_ON_DISK = "sugar_crepe_pp/data/ with the five files such as swap_obj.json, and COCO's photos coco/val2017/*.jpg"
PROVIDES = frozenset({"captions", "several_captions", "negatives"})
SPLITS = {"test": "test"}

GROUPS = ("replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")


class Options(Strict):
    """Folders of the benchmark."""

    folder: str = Field(default="sugar_crepe_pp", description="folder of the data set, under the data root")
    annotations: str = Field(default="data", description="folder of the five files, in the folder")
    photos: str = Field(default="coco/val2017", description="folder of the photos, under the data root")
    absent: Absent = Field(default="refuse", description="items whose photo is not on disk: refuse or skip")


class _Item(CocoRow):
    id: int
    filename: str
    caption: str
    caption2: str
    negative_caption: str


class _Group(RootModel[list[_Item]]):
    """The items of a file."""


def read(root: Path | None, split: str, options: Options) -> Examples:
    """All items in the order of `GROUPS`; the tag `group` names an item's group.

    Raises:
        UserError: a file is missing or malformed.
    """
    known_split(split, SPLITS, "sugar_crepe_pp_captions")
    home = DataFolder.find(root, options.folder, NEEDS_ON_DISK)
    assert root is not None
    rows_of, contents = read_groups(home, options.annotations, GROUPS, _Group)
    items = [
        PhotoItem(
            id=f"{group}/{row.id}",
            file=f"{options.photos}/{row.filename}",
            captions=(row.caption, row.caption2),
            negatives=(row.negative_caption,),
            tags={"group": group},
        )
        for group, rows in rows_of.items()
        for row in rows.root
    ]
    return photo_split("sugar_crepe_pp_captions", split, root, items, contents, options.absent, counted="group")
