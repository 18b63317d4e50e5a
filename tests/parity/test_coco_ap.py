"""Our AP statistic against the numbers that the COCO authors publish for their own fake detections."""

import contextlib
import io

import pytest

from sparc_bench.metrics.average_precision import AveragePrecision

OFFICIAL = {
    (0, None): 0.5045806987249628,
    (0, 0): 0.6969727247299577,
    (0, 5): 0.5729816669904824,
    (1, None): 0.5856257209410443,
    (2, None): 0.5193996948036719,
    (3, None): 0.5013978986347466,
}
"""(area range, IoU threshold) -> the first six of the twelve official numbers."""


@pytest.fixture(scope="module")
def evaluation(test_data):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    folder = test_data / "coco_eval_reference"
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "instances_val2014_100.json"))
        found = truth.loadRes(str(folder / "instances_val2014_fakebbox100_results.json"))
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
    return evaluation


@pytest.mark.parametrize(("area", "threshold"), OFFICIAL)
def test_official_numbers(evaluation, area, threshold):
    statistic = AveragePrecision.of(evaluation, area, None if threshold is None else [threshold])
    assert statistic.value == pytest.approx(OFFICIAL[area, threshold], abs=1e-9)
