import numpy as np
import pytest
import torch

from sparc_bench.metrics import iou
from sparc_bench.metrics.iou import best_constant, image_miou_score, inside_area, pixel_counts, upsampled_strips


def upsampled(scores, area, size, rule):
    return np.concatenate([strip for _, strip in upsampled_strips(scores, np.array(area), size, rule)], axis=1)


def test_counts_worked_by_hand():
    scores = np.array([[3, 0, 0, 2], [1, 5, 1, 2], [0, 0, 4, 1]], dtype=np.float32)
    counts = pixel_counts(scores, np.array([0, 0, 2, 1]))
    # pixel 0 right, pixel 1 taken by class 1, pixel 2 right, pixel 3 half class 0, half class 1
    assert counts.intersection_C.tolist() == [1, 0.5, 1]
    assert counts.predicted_C.tolist() == [1.5, 1.5, 1]
    assert counts.truth_C.tolist() == [2, 1, 1]
    assert counts.ties == 1


def test_ties_among_wrong_classes_give_the_right_one_nothing():
    counts = pixel_counts(np.array([[0], [2], [2]], dtype=np.float32), np.array([0]))
    assert counts.intersection_C.tolist() == [0, 0, 0]
    assert counts.predicted_C.tolist() == [0, 0.5, 0.5]


def test_without_pixels_all_counts_are_zero():
    counts = pixel_counts(np.zeros((3, 0), dtype=np.float32), np.zeros(0, dtype=np.int64))
    assert counts.intersection_C.tolist() == counts.predicted_C.tolist() == counts.truth_C.tolist() == [0, 0, 0]
    assert counts.ties == 0


def test_tied_credit_is_the_mean_over_random_orders():
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 3, size=(4, 50)).astype(np.float32), rng.integers(0, 4, size=50)
    drawn = []
    for _ in range(1000):
        order = rng.permutation(4)
        predicted = order[scores[order].argmax(axis=0)]
        drawn.append(np.bincount(truth[predicted == truth], minlength=4))
    counts = pixel_counts(scores, truth)
    assert np.mean(drawn, axis=0) == pytest.approx(counts.intersection_C, abs=0.25)
    assert counts.predicted_C.sum() == pytest.approx(50)


@pytest.mark.parametrize("size", [(20, 30), (64, 64), (7, 5)])
@pytest.mark.parametrize("rule", ["bilinear", "nearest"])
def test_upsampling_equals_torch_where_the_grid_covers_the_image(size, rule):
    scores = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    option = {"align_corners": False} if rule == "bilinear" else {}
    mode = "bilinear" if rule == "bilinear" else "nearest-exact"
    theirs = torch.nn.functional.interpolate(torch.from_numpy(scores)[None], size=size, mode=mode, **option)[0]
    assert upsampled(scores, (0, 0, size[1], size[0]), size, rule) == pytest.approx(theirs.numpy(), abs=1e-6)


def test_strips_do_not_change_the_scores(monkeypatch):
    scores = np.random.default_rng(0).normal(size=(3, 4, 4)).astype(np.float32)
    whole = upsampled(scores, (2, 1, 18.5, 12), (13, 21), "bilinear")
    monkeypatch.setattr(iou, "STRIP", 100)
    assert len(list(upsampled_strips(scores, np.array([2, 1, 18.5, 12]), (13, 21), "bilinear"))) == 13
    assert (upsampled(scores, (2, 1, 18.5, 12), (13, 21), "bilinear") == whole).all()


def test_equal_scores_stay_exactly_equal():
    scores = np.repeat(np.random.default_rng(0).normal(size=(1, 5, 5)), 7, axis=0).astype(np.float32)
    upscaled = upsampled(scores, (0.3, 0.7, 30.1, 22.9), (23, 31), "bilinear")
    assert (upscaled == upscaled[:1]).all()


def test_scores_lie_where_the_area_lies():
    """A grid of one row and two columns over the middle of an image."""
    scores = np.array([[[1.0, 2.0]]], dtype=np.float32)
    row = upsampled(scores, (2, 0, 6, 1), (1, 8), "nearest")[0, 0]
    assert row[2:6].tolist() == [1, 1, 2, 2]
    assert inside_area(np.array([2, 0, 6, 1]), (1, 8)).tolist() == [
        [False, False, True, True, True, True, False, False]
    ]
    # pixel centres at 3.5 and 4.5, cell centres at 3 and 5
    assert upsampled(scores, (2, 0, 6, 1), (1, 8), "bilinear")[0, 0, 2:6].tolist() == [1, 1.25, 1.75, 2]


def test_image_miou_is_over_the_classes_present():
    intersection = np.array([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    union = np.array([[4.0, 3.0, 1.0], [0.0, 5.0, 0.0]])
    truth = np.array([[3.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    found = image_miou_score(intersection, union, truth)
    assert found[0] == pytest.approx((0.5 + 1.0) / 2)
    assert np.isnan(found[1])


def test_best_constant_worked_by_hand():
    truth = np.array([[3.0, 1.0, 0.0], [0.0, 4.0, 0.0], [0.0, 0.0, 0.0]])
    assert best_constant(truth) == pytest.approx(
        {"miou": 5 / 8 / 2, "pixel_accuracy": 5 / 8, "image_miou": (1 / 4 / 2 + 1) / 2}
    )
