"""Our pixel counts and mIoU against mmsegmentation's IoUMetric on the same masks."""

import numpy as np
import pytest
import torch

from sparc_bench.metrics.iou import pixel_counts
from sparc_bench.protocol import Block, Predictions
from sparc_bench.protocols import segmentation

CLASSES, VOID = 6, 255


@pytest.mark.parametrize("seed", range(3))
def test_equals_iou_metric(seed):
    evaluation = pytest.importorskip("mmseg.evaluation", reason="mmsegmentation is not installed (extra mmseg)")
    rng = np.random.default_rng(seed)
    truth_G = [rng.integers(0, CLASSES - 2, size=(15, 20)) for _ in range(8)]
    for truth in truth_G:
        truth[rng.random(truth.shape) < 0.2] = VOID
    # class 4 is predicted and never true, class 5 neither: the first counts as 0, the second not at all
    scores_G = [rng.normal(size=(CLASSES, 15, 20)).astype(np.float32) for _ in range(8)]
    for scores in scores_G:
        scores[5] = -9

    metric = evaluation.IoUMetric(ignore_index=VOID)
    results = [
        metric.intersect_and_union(torch.from_numpy(scores.argmax(0)), torch.from_numpy(truth), CLASSES, VOID)
        for scores, truth in zip(scores_G, truth_G, strict=True)
    ]
    theirs = metric.total_area_to_metrics(*(sum(areas) for areas in zip(*results, strict=True)))

    counts = [pixel_counts(s[:, t != VOID], t[t != VOID]) for s, t in zip(scores_G, truth_G, strict=True)]
    block = Block(np.arange(len(counts)), dict(segmentation._arrays("", counts)))
    whole = segmentation._Counts.of(Predictions((block,)), "", len(counts))
    for one, union_C, (intersection, union, predicted, true) in zip(counts, whole.union_GC, results, strict=True):
        assert one.intersection_C.tolist() == intersection.tolist()
        assert union_C.tolist() == union.tolist()
        assert one.predicted_C.tolist() == predicted.tolist()
        assert one.truth_C.tolist() == true.tolist()
    ours = whole.statistics()["miou"]
    assert np.isnan(theirs["IoU"][5])
    assert theirs["IoU"][4] == 0
    assert ours.value == pytest.approx(np.nanmean(theirs["IoU"]), abs=1e-6)
