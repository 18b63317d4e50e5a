"""LVIS's rules: an image was checked for some classes only, and its best detections alone count.

Shapes: D detections.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from sparc_bench.dataset import DataSplit, Example
from sparc_bench.errors import UserError
from sparc_bench.outputs.detections import SplitDetections

FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
"""LVIS's letters and the ends of the metrics' names."""


def checked_for(example: Example) -> Mapping[str, frozenset[int]]:
    """Labels that are not in the image (`absent`), and that are in it but not all marked (`not_exhaustive`).

    Raises:
        UserError: a data set that does not know.
    """
    facts: Mapping[str, Any] = example.facts or {}
    if "absent" not in facts:
        raise UserError('This data set does not say what its images were checked for: set rules = "coco".')
    return facts


def judged(found: SplitDetections, data: DataSplit, most: int) -> tuple[SplitDetections, list[str]]:
    """The best `most` detections of each image (the first of equal ones), and of these what the image was checked for.

    Also sentences about what was left out. Detections without any pixel go too, as in LVIS's own code.
    """
    order_D = np.lexsort((-found.score_D, found.example_D))
    first_D = np.searchsorted(found.example_D[order_D], found.example_D[order_D])
    best_D = np.sort(order_D[np.arange(len(found)) - first_D < most])
    cut = len(found) - len(best_D)
    found = found[best_D]
    known = [checked_for(e)["absent"] | {region.label for region in e.regions} for e in data.examples]
    pairs = zip(found.example_D.tolist(), found.label_D.tolist(), strict=True)
    known_D = np.array([label in known[example] for example, label in pairs], dtype=bool)
    empty_D = found.area_D <= 0
    notes = []
    if cut:
        notes.append(f"{cut} detections beyond the best {most} of their image are cut.")
    if not known_D.all():
        left_out = np.count_nonzero(~known_D)
        notes.append(f"{left_out} detections of classes that their image was not checked for are left out.")
    if (known_D & empty_D).any():
        notes.append(f"{np.count_nonzero(known_D & empty_D)} detections without a pixel are left out.")
    return found[np.flatnonzero(known_D & ~empty_D)], notes


def ignore_unmatched(evaluation: COCOeval, label: int, example_of: Mapping[int, Example]) -> None:
    """Where a class is not marked exhaustively, a detection that matches nothing may be right: it counts as nothing.

    Args:
        evaluation: of one class, after `evaluate()`; changed in place.
        label: the class.
        example_of: image id -> example.
    """
    for entry in evaluation.evalImgs:
        if entry is not None and label in checked_for(example_of[entry["image_id"]])["not_exhaustive"]:
            entry["dtIgnore"] = entry["dtIgnore"].astype(bool) | (entry["dtMatches"] == 0)
