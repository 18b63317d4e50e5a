"""Rows in COCO's format and pycocotools' evaluation of them, for `detection` and `oracle_boxes`.

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
"""Upper end of COCO's area range "all", in pixels."""


def corner_and_extent(box_R4: Float[ndarray, "R 4"]) -> Float[ndarray, "R 4"]:
    """Boxes as COCO writes them (left, top, width, height) from left, top, right, bottom."""
    return np.concatenate([box_R4[:, :2], box_R4[:, 2:] - box_R4[:, :2]], axis=1)


def category_row(label: int, name: str) -> dict[str, Any]:
    """Row of "categories"; its id is 1 + the label."""
    return {"id": label + 1, "name": name}


def object_row(number: int, image: int, region: Region, area: float) -> dict[str, Any]:
    """Row of "annotations" of an object."""
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
    """Row of "annotations" of a detection, as by COCO.loadRes; `box` is left, top, width, height."""
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
    """Pycocotools' COCO of rows in its format, indexed without its printed lines."""
    coco = COCO()
    coco.dataset = {"images": list(images), "categories": list(categories), "annotations": list(annotations)}
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def area_ranges(edges: tuple[float, float]) -> list[list[float]]:
    """Area ranges all, small, medium and large; both ends are inside."""
    small, large = edges
    return [[0, EVERYTHING], [0, small], [small, large], [large, EVERYTHING]]


def matched(
    truth: COCO, found: COCO, category: int, iou: str, max_detections: int, ranges: Sequence[Sequence[float]]
) -> COCOeval:
    """COCOeval of one category after `evaluate()` at IoU 0.50 to 0.95, over the images of `truth`."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, found, iou)
        evaluation.params.catIds = [category]
        evaluation.params.maxDets = [max_detections]
        evaluation.params.areaRng = list(ranges)
        evaluation.evaluate()
    return evaluation


def precisions(evaluation: COCOeval) -> dict[str, AveragePrecision]:
    """`ap` (IoU 0.50 to 0.95), `ap50`, `ap75`, and `ap_SIZE` of each evaluated size."""
    statistics = {
        "ap": AveragePrecision.of(evaluation),
        "ap50": AveragePrecision.of(evaluation, thresholds=[0]),
        "ap75": AveragePrecision.of(evaluation, thresholds=[5]),
    }
    for area, size in enumerate(SIZES[: len(evaluation.params.areaRng) - 1], start=1):
        statistics[f"ap_{size}"] = AveragePrecision.of(evaluation, area)
    return statistics


def recalled(evaluation: COCOeval, area: int, best: int) -> tuple[Float32[ndarray, "G"], Float32[ndarray, "G"]]:
    """(found objects, all objects) of each image, summed over IoU thresholds, with its `best` first detections.

    The ratio of their sums is the recall that COCOeval averages over thresholds; images are in ascending order of ids.
    """
    images, thresholds = len(evaluation.params.imgIds), len(evaluation.params.iouThrs)
    found_G, truths_G = np.zeros(images, dtype=np.float32), np.zeros(images, dtype=np.float32)
    for g, entry in enumerate(evaluation.evalImgs[area * images : (area + 1) * images]):
        if entry is not None:
            true_TD = (entry["dtMatches"] > 0) & ~entry["dtIgnore"].astype(bool)
            found_G[g] = np.count_nonzero(true_TD[:, :best])
            truths_G[g] = thresholds * np.count_nonzero(entry["gtIgnore"] == 0)
    return found_G, truths_G
