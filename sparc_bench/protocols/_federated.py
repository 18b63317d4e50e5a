"""LVIS's federated rules: an image is annotated for some classes only, and only its best detections count.

Shapes: D detections.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pycocotools.cocoeval import COCOeval

from sparc_bench.dataset import Example, Examples
from sparc_bench.errors import UserError
from sparc_bench.facets import Federated
from sparc_bench.outputs.detections import SplitDetections

FREQUENCIES = {"r": "rare", "c": "common", "f": "frequent"}
"""LVIS's letter of a class frequency -> end of the metric's name."""


def checked_for(example: Example) -> Federated:
    """What the image was checked for.

    Raises:
        UserError: the data set lacks them.
    """
    if not example.has(Federated):
        raise UserError('This data set does not say what its images were checked for: set rules = "coco".')
    return example.facet(Federated)


def judged(found: SplitDetections, data: Examples, most: int) -> tuple[SplitDetections, list[str]]:
    """(detections that count, notes on the others): the best `most` of each image, of classes annotated in it.

    Of equal scores the first is kept. Detections without a pixel are left out too, as in LVIS's own code.
    """
    order_D = np.lexsort((-found.score_D, found.example_D))
    first_D = np.searchsorted(found.example_D[order_D], found.example_D[order_D])
    best_D = np.sort(order_D[np.arange(len(found)) - first_D < most])
    cut = len(found) - len(best_D)
    found = found[best_D]
    known = [checked_for(e).absent | {region.label for region in e.regions} for e in data.examples]
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
    """Ignore unmatched detections of a class in images where it is annotated incompletely: they may be right.

    Args:
        evaluation: COCOeval of one class, after `evaluate()`; changed in place.
        label: the class.
        example_of: image id -> example.
    """
    for entry in evaluation.evalImgs:
        if entry is not None and label in checked_for(example_of[entry["image_id"]]).not_exhaustive:
            entry["dtIgnore"] = entry["dtIgnore"].astype(bool) | (entry["dtMatches"] == 0)
