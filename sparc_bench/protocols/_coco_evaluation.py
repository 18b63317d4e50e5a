"""COCO's rows and pycocotools' evaluation as statistics: what every protocol that scores average precision shares.

Shapes: R boxes, G clusters (images).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from sparc_bench.dataset import Region
from sparc_bench.metrics.average_precision import AveragePrecision
from sparc_bench.protocols.regions import SIZES

EVERYTHING = 1e10
"""COCO's upper end of "all areas", in pixels."""


def corner_and_extent(box_R4: Float[ndarray, "R 4"]) -> Float[ndarray, "R 4"]:
    """Left, top, width, height, as COCO writes boxes, from left, top, right, bottom."""
    return np.concatenate([box_R4[:, :2], box_R4[:, 2:] - box_R4[:, :2]], axis=1)


def category_row(label: int, name: str) -> dict[str, Any]:
    """A row of "categories"; the id is 1 + the label."""
    return {"id": label + 1, "name": name}


def object_row(number: int, image: int, region: Region, area: float) -> dict[str, Any]:
    """An object as a row of "annotations"."""
    left, top, right, bottom = region.box
    return {
        "id": number,
        "image_id": image,
        "category_id": region.label + 1,
        "bbox": [left, top, right - left, bottom - top],
        "area": area,
        "iscrowd": int(region.crowd),
    }


def detection_row(
    number: int, image: int, label: int, score: float, box: Sequence[float], area: float
) -> dict[str, Any]:
    """A detection as a row of "annotations", as COCO's loadRes makes it; the box is left, top, width, height."""
    return {
        "id": number,
        "image_id": image,
        "category_id": label + 1,
        "score": score,
        "bbox": list(box),
        "area": area,
        "iscrowd": 0,
    }


def indexed(
    images: Sequence[dict[str, Any]], categories: Sequence[dict[str, Any]], annotations: Sequence[dict[str, Any]]
) -> COCO:
    """Rows in COCO's format as pycocotools holds them; nothing is printed."""
    coco = COCO()
    coco.dataset = {"images": list(images), "categories": list(categories), "annotations": list(annotations)}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def area_ranges(edges: tuple[float, float]) -> list[list[float]]:
    """All areas, then small, medium and large; both ends belong to a range."""
    small, large = edges
    return [[0, EVERYTHING], [0, small], [small, large], [large, EVERYTHING]]


def matched(
    truth: COCO, found: COCO, category: int, iou: str, max_detections: int, ranges: Sequence[Sequence[float]]
) -> COCOeval:
    """Detections of one category matched to its objects at IoU 0.50 to 0.95; images are those of `truth`."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, found, iou)
        evaluation.params.catIds = [category]
        evaluation.params.maxDets = [max_detections]
        evaluation.params.areaRng = list(ranges)
        evaluation.evaluate()
    return evaluation


def precisions(evaluation: COCOeval) -> dict[str, AveragePrecision]:
    """`ap` (IoU 0.50 to 0.95), `ap50`, `ap75`, and, where the ranges were matched too, `ap` of each size."""
    statistics = {
        "ap": AveragePrecision.of(evaluation),
        "ap50": AveragePrecision.of(evaluation, thresholds=[0]),
        "ap75": AveragePrecision.of(evaluation, thresholds=[5]),
    }
    for area, size in enumerate(SIZES[: len(evaluation.params.areaRng) - 1], start=1):
        statistics[f"ap_{size}"] = AveragePrecision.of(evaluation, area)
    return statistics


def recalled(evaluation: COCOeval, area: int, best: int) -> tuple[Float32[ndarray, "G"], Float32[ndarray, "G"]]:
    """Objects found and to be found, by image, summed over the IoU thresholds, among the `best` first detections.

    Their ratio is the recall that COCOeval averages over thresholds; images are in ascending order of their ids.
    """
    images, thresholds = len(evaluation.params.imgIds), len(evaluation.params.iouThrs)
    found_G, truths_G = np.zeros(images, dtype=np.float32), np.zeros(images, dtype=np.float32)
    for g, entry in enumerate(evaluation.evalImgs[area * images : (area + 1) * images]):
        if entry is not None:
            true_TD = (entry["dtMatches"] > 0) & ~entry["dtIgnore"].astype(bool)
            found_G[g] = np.count_nonzero(true_TD[:, :best])
            truths_G[g] = thresholds * np.count_nonzero(entry["gtIgnore"] == 0)
    return found_G, truths_G
