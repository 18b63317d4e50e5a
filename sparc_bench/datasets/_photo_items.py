"""Items of caption benchmarks, of which several can share a photo.

Every item becomes an example; items with the same photo share the image's id, so that the photo is encoded once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from sparc_bench.dataset import Example, Examples
from sparc_bench.datasets._photos import coco_photo
from sparc_bench.errors import UserError
from sparc_bench.files.annotations import (
    AnyRows,
    DataFolder,
    Missing,
    absent_notes,
    file_sizes,
    fingerprint,
    read_json,
    repeated,
    some,
)
from sparc_bench.files.file_hashes import UNREADABLE, file_hashes
from sparc_bench.images.item import Box, ImageItem

_COCO_2017_FILE = re.compile(r"\d{12}\.jpg")


@dataclass(frozen=True)
class PhotoItem:
    """One item of a benchmark.

    Attributes:
        id: id, unique within the data set.
        file: path of the photo below the data root, with forward slashes.
        captions: texts that are true of the photo.
        negatives: texts that are false of the photo.
        tags: named facts, such as {"group": "swap_obj"}.
        group: name shared by items that belong together, or None.
        window: box of the photo that the item is about, or None for the whole photo.
        photo: the photo's name across data sets; empty for COCO's name of a COCO file, else for none.
    """

    id: str
    file: str
    captions: tuple[str, ...]
    negatives: tuple[str, ...]
    tags: Mapping[str, str] = field(default_factory=dict)
    group: str | None = None
    window: Box | None = None
    photo: str = ""


def read_groups(
    home: DataFolder, folder: str, groups: Iterable[str], form: type[AnyRows]
) -> tuple[dict[str, AnyRows], list[bytes]]:
    """Rows of each group's JSON file, such as data/swap_obj.json, and the bytes of the files.

    Raises:
        UserError: a file is missing or malformed.
    """
    rows: dict[str, AnyRows] = {}
    contents: list[bytes] = []
    for group in groups:
        name = f"{folder}/{group}.json"
        contents.append(home.read(name))
        rows[group] = read_json(form, contents[-1], home.path / name)
    return rows, contents


def photo_split(
    dataset: str,
    split: str,
    root: Path,
    items: Sequence[PhotoItem],
    annotations: Iterable[bytes],
    absent: Missing,
    counted: str = "",
) -> Examples:
    """The data split of these items; with `absent` "skip", items of absent photos and their groups are left out.

    The id of an image is COCO's number for a photo of COCO 2017 (as in `coco_captions`), else its file name. `sizes`
    counts the items, the photos and the items of each value of the tag `counted`.

    Args:
        dataset: name of the reader.
        split: name of the split.
        root: data root, the base of the items' files.
        items: items in the benchmark's order.
        annotations: bytes of the annotation files.
        absent: "refuse", "skip" or "keep" items of absent photos.
        counted: tag whose values are counted, or "".

    Raises:
        UserError: an id is repeated, a caption is blank, or photos are absent.
    """
    _refuse_odd(dataset, items)
    rows = Counter(item.file for item in items)
    bytes_of = file_sizes(root, rows)
    notes = absent_notes(rows, bytes_of, root, "keep" if absent == "keep" else "skip")
    unopened = absent == "keep" and len(bytes_of) < len(rows)
    if unopened:
        bytes_of = {file: bytes_of.get(file, 0) for file in rows}
    if len(bytes_of) < len(rows) and (absent == "refuse" or not bytes_of):
        raise UserError(_absence(dataset, root, rows, bytes_of))
    torn = {item.group for item in items if item.group is not None and item.file not in bytes_of}
    here = [item for item in items if item.file in bytes_of and item.group not in torn]
    hashes = file_hashes(root, dict.fromkeys(item.file for item in here))
    contents = {_image_id(item.file): hashes.get(item.file, UNREADABLE) for item in here}
    of_group = Counter(item.tags[counted] for item in here) if counted else Counter[str]()
    groups = sorted({item.tags[counted] for item in items}) if counted else []
    return Examples(
        dataset=dataset,
        split=split,
        examples=tuple(_example(item, root, hashes.get(item.file, UNREADABLE)) for item in here),
        fingerprint=fingerprint(annotations, {} if unopened else contents),
        notes=notes,
        sizes={"items": len(here), "photos": len(contents), **{group: of_group[group] for group in groups}},
    )


def _absence(dataset: str, root: Path, rows: Mapping[str, int], bytes_of: Mapping[str, int]) -> str:
    missing = [file for file in rows if file not in bytes_of]
    some_are = (
        ", or score what is there as a sample, by a task card of your own with absent = 'skip' in its [data], "
        "sample = true and the counts of your part"
    )
    return (
        f"{len(missing)} of the {len(rows)} photos of {dataset}, of {sum(rows[file] for file in missing)} of its "
        f"{sum(rows.values())} items, are not in {root}, such as {some(missing)}: put them there, mend the options "
        f"that say where photos lie{some_are if bytes_of else ''}."
    )


def _image_id(file: str) -> str:
    name = PurePosixPath(file).name
    return str(int(name[:12])) if _COCO_2017_FILE.fullmatch(name) else name


def _example(item: PhotoItem, root: Path, content: str) -> Example:
    return Example(
        id=item.id,
        image=ImageItem.file(_image_id(item.file), root / item.file, content),
        window=item.window,
        captions=item.captions,
        negatives=item.negatives,
        tags=item.tags,
        group=item.group,
        photo=item.photo or coco_photo(item.file),
    )


def _refuse_odd(dataset: str, items: Sequence[PhotoItem]) -> None:
    twice = repeated([item.id for item in items])
    if twice:
        raise UserError(f"{dataset} holds the item {some(twice)} more than once: take the repeated entries out.")
    blank = [item.id for item in items if not all(text.strip() for text in (*item.captions, *item.negatives))]
    if blank:
        raise UserError(f"{dataset} has a caption without a word in {some(blank)}: copy the annotations again.")
