"""Flickr8k on disk: 8,000 photos with five captions each.

The data are `captions.txt` (one row per caption, quoted where a caption holds commas) and the official split lists.
Photos are used as decoded, without applying their EXIF orientation, as is usual in the field.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from sparc_bench.cards.bounds import Number
from sparc_bench.cards.card import Extended
from sparc_bench.dataset import Example, Examples
from sparc_bench.datasets._photos import Photos, flickr_photo
from sparc_bench.datasets._swapped_words import negatives_of
from sparc_bench.errors import UserError
from sparc_bench.files.annotations import Absent, DataFolder, known_split, some

TITLE = "Flickr8k: photos of people and animals with five captions each (6,000 / 1,000 / 1,000)"
SOURCE = "Hodosh, Young, Hockenmaier 2013, Framing Image Description as a Ranking Task (JAIR 47); official split lists"
NEEDS_ON_DISK = (
    "flickr8k/ with captions.txt (header image,caption), "
    "Flickr_8k.trainImages.txt, Flickr_8k.devImages.txt, Flickr_8k.testImages.txt and images/*.jpg"
)
PROVIDES = frozenset({"captions", "several_captions", "negatives"})
SPLITS = {"train": "train", "val": "val", "test": "test", "all": "test"}

_LISTS = {"train": "Flickr_8k.trainImages.txt", "val": "Flickr_8k.devImages.txt", "test": "Flickr_8k.testImages.txt"}


class Options(Extended):
    """Folders of the data set, and which photos to read."""

    folder: str = Field(default="flickr8k", description="folder of the data set, under the data root")
    images: str = Field(default="images", description="folder of the photos, in the folder")
    absent: Absent = Field(default="refuse", description="captions whose photo is not on disk: refuse or skip")
    first: Number | None = Field(default=None, description="number of photos, the first of the split; none: all")
    tuning: Literal["", "train", "val", "test"] = Field(
        default="", description="another split, to choose the constant caption on; empty: none"
    )

    negatives: Literal["", "swap"] = Field(
        default="",
        description="false caption for every caption: swap (two of its words or phrases change places, after NegCLIP; "
        "needs the extra 'faithfulness'); empty: no negatives",
    )

    FORMER: ClassVar[Mapping[str, Any]] = {"first": None, "tuning": "", "negatives": ""}


def read(root: Path | None, split: str, options: Options) -> Examples:
    """A split in the order of its official list; an id is the photo's file name.

    The split "all" is every photo of captions.txt, sorted by name; the tag `split` names the list of a photo, if any.
    Listed names without captions are left out and named in `notes` (the official test list has one). `options.absent`
    says whether photos with captions may be absent. With `options.negatives`, `negatives` holds a false caption for
    every caption, made from that caption alone; `notes` counts them by the rule that made them.

    Raises:
        UserError: a file is missing or malformed, or negatives are asked for without HanTa.
    """
    known_split(split, SPLITS, "flickr8k")
    home = DataFolder.find(root, options.folder, NEEDS_ON_DISK)
    if options.tuning == split or (options.tuning and split == "all"):
        raise UserError(f"tuning = '{options.tuning}' would choose on the photos of '{split}': name another split.")
    lists = {each: home.lines(name) for each, name in _LISTS.items() if split in (each, "all")}
    images = home.folder(options.images, options.absent)
    captions = _captions(home.text("captions.txt"), home.path / "captions.txt")
    listed = sorted(captions) if split == "all" else lists[split]
    source = "captions.txt" if split == "all" else _LISTS[split]

    rows = {name: len(captions[name]) for name in [name for name in listed if name in captions][: options.first]}
    what = f"the photos of {source}: the data set needs {NEEDS_ON_DISK}"
    photos = Photos.find(images, rows, options.absent, what)
    notes = photos.notes
    bare = [name for name in listed if name not in captions]
    if bare:
        notes = (f"{len(bare)} of {len(listed)} names of {source} have no captions, left out: {some(bare)}.", *notes)
    tuning = home.lines(_LISTS[options.tuning]) if options.tuning else []
    files = ("captions.txt", source, *([_LISTS[options.tuning]] if options.tuning else []))
    negatives: dict[str, tuple[str, ...]] = {}
    if options.negatives:
        negatives, note = negatives_of({name: captions[name] for name in rows if name in photos.sizes})
        notes = (*notes, note)
    written = [json.dumps(negatives, sort_keys=True).encode()] if options.negatives else []
    list_of = {name: each for each, names in lists.items() for name in names} if split == "all" else {}
    return Examples(
        dataset="flickr8k",
        split=split,
        examples=tuple(
            Example(
                id=name,
                image=photos.item(name, name),
                captions=tuple(captions[name]),
                negatives=negatives.get(name, ()),
                photo=flickr_photo(name),
                tags={"split": list_of[name]} if name in list_of else {},
            )
            for name in rows
            if name in photos.sizes
        ),
        fingerprint=photos.fingerprint(
            [*(home.read(name) for name in dict.fromkeys(files)), *written], {name: name for name in photos.sizes}
        ),
        tuning=tuple(tuple(captions[name]) for name in tuning if name in captions),
        notes=notes,
    )


def _captions(text: str, where: Path) -> dict[str, list[str]]:
    """File name -> captions, in the file's order."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    captions: dict[str, list[str]] = {}
    try:
        header = next(rows, [])
        if header != ["image", "caption"]:
            raise UserError(f"{where} begins with {','.join(header)!r}: its first line must be image,caption.")
        for row in rows:
            if not row:
                continue
            if len(row) != 2 or not row[1].strip():
                raise UserError(
                    f"{where} has {len(row)} fields or an empty caption at line {rows.line_num}: write image,caption, "
                    "with quotes around a caption that holds commas."
                )
            captions.setdefault(row[0], []).append(row[1])
    except csv.Error as error:
        raise UserError(f"{where} is no valid CSV at line {rows.line_num} ({error}): mend that line.") from None
    return captions
