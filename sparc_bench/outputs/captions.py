"""Captions: one for each image, from a captioner or from a retriever that returns its best caption only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter

from sparc_bench.dataset import Example
from sparc_bench.errors import UserError
from sparc_bench.files.annotations import CocoRow
from sparc_bench.files.json_rows import validated_rows
from sparc_bench.outputs.ids import IdMatch, file_names
from sparc_bench.outputs.outputs_file import OutputsFile

TITLE = "a caption for each image"
FORMAT = (
    'a JSON file {"image id": "caption", ...}, or a JSON or JSON Lines list of {"image_id": ..., "caption": ...} as '
    "COCO has it"
)


class _Row(CocoRow):
    image_id: int | str
    caption: str


_ROWS = TypeAdapter(list[_Row])
_TABLE = TypeAdapter(dict[str, str])


@dataclass(frozen=True)
class Captions:
    """Captions by image.

    Attributes:
        where: path of the file, for messages.
        image_ids: ids in the file's order.
        texts: caption of each image.
    """

    where: str
    image_ids: tuple[str, ...]
    texts: tuple[str, ...]

    def of(self, examples: Sequence[Example]) -> tuple[list[str], tuple[str, ...]]:
        """Captions of a task's images, and notes about entries for other images.

        Raises:
            UserError: an image has no caption.
        """
        ids = [example.id for example in examples]
        places = IdMatch.of(ids, self.image_ids, self.where, file_names(examples))
        places.refuse_missing(ids, self.where)
        return [self.texts[places.index_of[item_id]] for item_id in ids], places.notes(self.where)


def parse(file: OutputsFile) -> Captions | None:
    """The captions, or None for a file of another kind.

    Raises:
        UserError: a row is malformed, or a caption is blank.
    """
    rows: Any = file.rows
    if isinstance(rows, dict) and {"image_id", "caption"} <= rows.keys():
        rows = [rows]
    where = str(file.path)
    if isinstance(rows, dict) and rows and all(isinstance(value, str) for value in rows.values()):
        table = validated_rows(_TABLE, rows, where)
        found = Captions(where, tuple(table), tuple(table.values()))
    elif isinstance(rows, list) and rows and isinstance(rows[0], dict) and "caption" in rows[0]:
        listed = validated_rows(_ROWS, rows, where)
        found = Captions(where, tuple(str(row.image_id) for row in listed), tuple(row.caption for row in listed))
    else:
        return None
    blank = [item_id for item_id, text in zip(found.image_ids, found.texts, strict=True) if not text.strip()]
    if blank:
        raise UserError(f"{where} has {len(blank)} blank captions, such as that of {blank[0]}: give every image words.")
    return found
