"""Winoground: two photos to match with two captions of the same words in different order.

The data are `examples.jsonl` and the unpacked `images.zip` of facebook/winoground (under a licence agreement).
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from sparc_bench.cards.card import Strict
from sparc_bench.dataset import Examples
from sparc_bench.datasets._photo_items import PhotoItem, photo_split
from sparc_bench.errors import UserError
from sparc_bench.files.annotations import Absent, CocoRow, DataFolder, decoded, known_split, read_json

TITLE = "Winoground: 400 times two photos and two captions of the same words in another order"
SOURCE = "Thrush et al. 2022, Winoground (arXiv:2204.03162), facebook/winoground on the Hugging Face hub"
NEEDS_ON_DISK = "winoground/data/ with examples.jsonl and images/*.png (its images.zip, unpacked)"
PROVIDES = frozenset({"captions", "negatives", "pairs"})
SPLITS = {"test": "test"}


class Options(Strict):
    """Folders of the benchmark."""

    folder: str = Field(default="winoground", description="folder of the data set, under the data root")
    annotations: str = Field(default="data/examples.jsonl", description="file of the examples, in the folder")
    images: str = Field(default="data/images", description="folder of the photos, in the folder")
    absent: Absent = Field(default="refuse", description="pairs with a photo that is not on disk: refuse or skip")


class _Row(CocoRow):
    id: int
    caption_0: str
    caption_1: str
    image_0: str
    image_1: str
    collapsed_tag: str
    num_main_preds: int


def read(root: Path | None, split: str, options: Options) -> Examples:
    """Two consecutive examples for each line (`12/0` and `12/1`), with one caption each and the other's as negative.

    The tag `swap` is the kind of the exchanged words (the owner's collapsed_tag: Object, Relation or Both), the tag
    `predicates` the number of main predicates.

    Raises:
        UserError: a file is missing or malformed.
    """
    known_split(split, SPLITS, "winoground_pairs")
    home = DataFolder.find(root, options.folder, NEEDS_ON_DISK)
    assert root is not None
    content = home.read(options.annotations)
    where = home.path / options.annotations
    lines = enumerate(decoded(content, where).splitlines(), start=1)
    rows = [read_json(_Row, line.encode(), f"line {number} of {where}") for number, line in lines if line.strip()]
    if not rows:
        raise UserError(f"{where} holds no lines: copy it again.")
    folder = home.folder(options.images, options.absent)
    there = sorted(folder.iterdir()) if folder.is_dir() else []
    file_of = {path.stem: path.name for path in there if path.is_file()}
    items = []
    for row in rows:
        captions, images = (row.caption_0, row.caption_1), (row.image_0, row.image_1)
        for side in (0, 1):
            name = file_of.get(Path(images[side]).stem, images[side])
            items.append(
                PhotoItem(
                    id=f"{row.id}/{side}",
                    file=f"{options.folder}/{options.images}/{name}",
                    captions=(captions[side],),
                    negatives=(captions[1 - side],),
                    tags={"swap": row.collapsed_tag, "predicates": str(row.num_main_preds)},
                    group=str(row.id),
                )
            )
    return photo_split("winoground_pairs", split, root, items, [content], options.absent)
