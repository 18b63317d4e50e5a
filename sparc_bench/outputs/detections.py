"""Detections: boxes or masks with classes and scores, from a detector or an instance segmenter.

Shapes: D detections.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int
from numpy import ndarray
from pycocotools import mask as coco_mask
from pydantic import Field, TypeAdapter

from sparc_bench.dataset import Example, Examples
from sparc_bench.errors import UserError
from sparc_bench.facets import PixelSize
from sparc_bench.files.annotations import CocoRow, some
from sparc_bench.files.boxes import CocoBox, outside_notes
from sparc_bench.files.json_rows import validated_rows
from sparc_bench.files.run_lengths import RunLengths
from sparc_bench.outputs.ids import IdMatch, file_names
from sparc_bench.outputs.outputs_file import OutputsFile

TITLE = "detections"
FORMAT = (
    'a JSON list of {"image_id": ..., "category_id": ..., "bbox": [left, top, width, height] in pixels, "score": ...} '
    'as COCO and LVIS have it, with the data set\'s own category ids; for masks "segmentation" as run lengths'
)


class _Row(CocoRow):
    image_id: int | str
    category_id: int
    score: float = Field(allow_inf_nan=False)
    bbox: CocoBox | None = None
    segmentation: RunLengths | None = None


_ROWS = TypeAdapter(list[_Row])
_AT_ONCE = 100_000


@dataclass(frozen=True)
class SplitDetections:
    """Detections of a data split, in the order of the file.

    Attributes:
        example_D: index of the image.
        label_D: index of the class.
        score_D: confidence.
        box_D4: left, top, width and height in pixels; None where masks are scored.
        masks: masks as run lengths in pycocotools' form; None where boxes are scored.
    """

    example_D: Int[ndarray, "D"]
    label_D: Int[ndarray, "D"]
    score_D: Float64[ndarray, "D"]
    box_D4: Float64[ndarray, "D 4"] | None = None
    masks: tuple[dict[str, Any], ...] | None = None

    def __len__(self) -> int:
        return len(self.label_D)

    @property
    def area_D(self) -> Float64[ndarray, "D"]:
        """Area of each mask or box in pixels."""
        if self.masks is not None:
            return np.array([float(coco_mask.area(mask)) for mask in self.masks], dtype=np.float64)
        assert self.box_D4 is not None
        return np.asarray(self.box_D4[:, 2] * self.box_D4[:, 3])

    def __getitem__(self, chosen: ndarray) -> SplitDetections:
        """Detections at these indices."""
        return SplitDetections(
            self.example_D[chosen],
            self.label_D[chosen],
            self.score_D[chosen],
            None if self.box_D4 is None else self.box_D4[chosen],
            None if self.masks is None else tuple(self.masks[index] for index in chosen),
        )

    def arrays(self) -> dict[str, ndarray]:
        """The same as arrays, for a block: `example`, `label`, `score` and `box`, or masks as packed run lengths."""
        found = {"example": self.example_D, "label": self.label_D, "score": self.score_D}
        if self.masks is None:
            assert self.box_D4 is not None
            return found | {"box": self.box_D4}
        return found | {
            "mask_size": np.array([mask["size"] for mask in self.masks], dtype=np.int64).reshape(-1, 2),
            "mask_bytes": np.array([len(mask["counts"]) for mask in self.masks], dtype=np.int64),
            "mask_counts": np.frombuffer(b"".join(mask["counts"] for mask in self.masks), dtype=np.uint8),
        }

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, ndarray]) -> SplitDetections:
        """Detections from what `arrays` gave."""
        masks = None
        if "mask_size" in arrays:
            packed, ends_D = arrays["mask_counts"].tobytes(), np.cumsum(arrays["mask_bytes"]).tolist()
            masks = tuple(
                {"size": size, "counts": packed[start:end]}
                for size, start, end in zip(arrays["mask_size"].tolist(), [0, *ends_D], ends_D, strict=False)
            )
        return cls(arrays["example"], arrays["label"], arrays["score"], arrays.get("box"), masks)


@dataclass(frozen=True)
class DetectionRows:
    """Detections as the rows of a file.

    Attributes:
        where: path of the file, for messages.
        image_id_D: image ids as written.
        category_D: category ids of the data set.
        score_D: confidences, finite.
        box_D4: left, top, width, height in pixels; NaN in a row without a box.
        masks: run lengths; None in a row without a mask.
    """

    where: str
    image_id_D: tuple[str, ...]
    category_D: Int[ndarray, "D"]
    score_D: Float64[ndarray, "D"]
    box_D4: Float64[ndarray, "D 4"]
    masks: tuple[RunLengths | None, ...]

    @classmethod
    def joined(cls, where: str, rows: list[Any]) -> DetectionRows:
        """Detections from JSON rows, validated in chunks; raises UserError for the first malformed row."""
        ids: list[str] = []
        categories, scores, boxes, masks = [], [], [], []
        named: dict[int | str, str] = {}
        for start in range(0, len(rows), _AT_ONCE):
            part = validated_rows(_ROWS, rows[start : start + _AT_ONCE], where, start)
            ids += [named.setdefault(row.image_id, str(row.image_id)) for row in part]
            categories.append(np.array([row.category_id for row in part], dtype=np.int64))
            scores.append(np.array([row.score for row in part], dtype=np.float64))
            boxes.append(np.array([row.bbox or (math.nan,) * 4 for row in part], dtype=np.float64))
            masks += [row.segmentation for row in part]
        if not rows:
            return cls(where, (), np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros((0, 4)), ())
        return cls(
            where, tuple(ids), np.concatenate(categories), np.concatenate(scores), np.concatenate(boxes), tuple(masks)
        )

    def of(self, data: Examples, *, masks: bool) -> tuple[SplitDetections, tuple[str, ...]]:
        """Detections of a data split's images, and notes about rows that were left out.

        Args:
            data: split whose classes have category ids.
            masks: whether masks are scored instead of boxes.

        Raises:
            UserError: a category id is unknown, no image belongs to the task, a row lacks its box or mask, or a mask
                differs in size from its image.
        """
        if not data.category_ids:
            raise UserError(
                f"{data.dataset} has no category ids, by which detections name classes: take a task on data in COCO's "
                "format."
            )
        known_C = np.array(data.category_ids, dtype=np.int64)
        unknown = np.setdiff1d(self.category_D, known_C)
        if len(unknown):
            raise UserError(
                f"{self.where} has detections of category {some([str(number) for number in unknown])}, which "
                f"{data.dataset} lacks (it has {len(known_C)}, {known_C[0]} to {known_C[-1]}): write the data set's "
                "own category ids."
            )
        given = list(dict.fromkeys(self.image_id_D))
        ids = list(data.values("id"))
        places = IdMatch.of(ids, given, self.where, file_names(data.examples))
        index_of = {given[at]: index for index, of in enumerate(ids) if (at := places.index_of.get(of)) is not None}
        example_D = np.array([index_of.get(item_id, -1) for item_id in self.image_id_D], dtype=np.int64)
        chosen_D = np.flatnonzero(example_D >= 0)
        without_D = (np.array([mask is None for mask in self.masks]) if masks else np.isnan(self.box_D4).any(axis=1))[
            chosen_D
        ]
        if without_D.any():
            raise UserError(
                f"{self.where} has {np.count_nonzero(without_D)} detections without "
                f'"{"segmentation" if masks else "bbox"}", such as one of image '
                f"{self.image_id_D[chosen_D[without_D][0]]}: this task scores {'masks' if masks else 'boxes'}, so give "
                "each its own."
            )
        found = SplitDetections(
            example_D=example_D[chosen_D],
            label_D=np.searchsorted(known_C, self.category_D[chosen_D]),
            score_D=self.score_D[chosen_D],
            box_D4=None if masks else self.box_D4[chosen_D],
            masks=tuple(self._mask(self.masks[row], data.examples[example_D[row]]) for row in chosen_D.tolist())
            if masks
            else None,
        )
        return found, places.notes(self.where) + self._outside_notes(found, data, chosen_D)

    def _outside_notes(self, found: SplitDetections, data: Examples, row_D: Int[ndarray, "D"]) -> tuple[str, ...]:
        """Note about boxes that leave their image, if any; `row_D` are their rows in the file."""
        size_N2 = stated_sizes(data)
        if found.box_D4 is None or size_N2 is None:
            return ()
        return outside_notes(
            found.box_D4,
            size_N2[found.example_D],
            self.where,
            lambda index: f"image {self.image_id_D[row_D[index]]} (row {row_D[index]})",
        )

    def _mask(self, mask: RunLengths | None, example: Example) -> dict[str, Any]:
        assert mask is not None
        height, width = mask.size
        size = example.facet(PixelSize)
        expected = (size.height, size.width)
        if (height, width) != expected:
            raise UserError(
                f"{self.where} has a mask of {height} x {width} pixels for the image {example.id} of {expected[0]} x "
                f"{expected[1]}: give masks of the original size."
            )
        counts = mask.counts
        if isinstance(counts, str):
            return {"size": [height, width], "counts": counts.encode()}
        packed: dict[str, Any] = coco_mask.frPyObjects({"counts": counts, "size": [height, width]}, height, width)
        return packed


def stated_sizes(data: Examples) -> Float64[ndarray, "N 2"] | None:
    """Width and height of every image; None where the data set does not state them."""
    sizes = [size for size in data.facets(PixelSize) if size is not None]
    if len(sizes) < len(data):
        return None
    return np.array([(size.width, size.height) for size in sizes], dtype=np.float64).reshape(-1, 2)


def parse(file: OutputsFile) -> DetectionRows | None:
    """The detections, or None for a file of another kind; an empty list holds none at all.

    Raises:
        UserError: a row is malformed, such as by a number that is not finite or a negative width.
    """
    rows = file.rows
    if not isinstance(rows, list) or (rows and not (isinstance(rows[0], dict) and "category_id" in rows[0])):
        return None
    return DetectionRows.joined(str(file.path), rows)
