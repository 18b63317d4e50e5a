"""Scores of a word's map, on maps worked by hand and against scikit-learn on pixels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from sparc_bench.metrics.grounding import (
    SCORES,
    auc_score,
    centre_map,
    hard_iou_score,
    map_scores,
    pointing_score,
    soft_iou_score,
)
from sparc_bench.metrics.statistic import MeanDifference

WORD, OTHER = np.array([4.0, 2.0, 0.0, 0.0]), np.array([0.0, 2.0, 4.0, 4.0])


def named(scores, word=WORD, other=OTHER):
    return dict(zip(SCORES, map_scores(np.asarray(scores, dtype=float), word, other).tolist(), strict=True))


def test_perfect_map_of_whole_patches_scores_one():
    word = np.array([0.0, 4.0, 4.0, 0.0])
    assert named(word, word, 4 - word) == dict.fromkeys(SCORES, 1.0)


def test_even_map_scores_the_area_and_one_half():
    area = 6 / 16
    assert named([7, 7, 7, 7]) == pytest.approx(dict.fromkeys(SCORES, area) | {"auc": 0.5})


def test_map_by_hand():
    found = named([2, 3, 1, 0])
    # the best patch is half the word's; recall 2/6 at precision 1/2, then 6/6 at 6/8
    assert found["pointing"] == 0.5
    assert found["ap"] == pytest.approx(2 / 6 * 2 / 4 + 4 / 6 * 6 / 8)
    # of 6 x 10 pairs: 8 others below the word's 6 pixels; 2 others tie with 2 and are above 4
    assert found["auc"] == pytest.approx((8 * 6 + 2 * 1) / 60)
    # weights 2/3, 1, 1/3, 0 and shares 1, 1/2, 0, 0
    assert found["soft_iou"] == pytest.approx((2 / 3 + 1 / 2) / (1 + 1 + 1 / 3))
    assert found["hard_iou"] == pytest.approx(6 / 8)


def test_unlabelled_pixels_count_nowhere():
    word, other = np.append(WORD, 0.0), np.append(OTHER, 0.0)
    assert named([2, 3, 1, 0, 1.5], word, other) == pytest.approx(named([2, 3, 1, 0]))
    assert pointing_score(np.array([0, 0, 0, 0, 1]), word, other) == 0


def test_no_value_without_both_kinds_of_pixels():
    scores, none = np.arange(4.0), np.zeros(4)
    assert np.isnan(auc_score(scores, WORD, none))
    assert np.isnan(map_scores(scores, none, OTHER)[[1, 2]]).all()
    assert soft_iou_score(scores, none, OTHER) == hard_iou_score(scores, none, OTHER) == 0


@given(st.integers(0, 2**32), st.integers(1, 6))
def test_equals_scikit_learn_on_hard_masks(seed, levels):
    rng = np.random.default_rng(seed)
    truth = rng.permutation([True, False, *(rng.random(30) < 0.3)])
    scores = rng.integers(levels, size=32) / 7
    found = named(scores, truth.astype(float), (~truth).astype(float))
    assert found["auc"] == pytest.approx(roc_auc_score(truth, scores))
    assert found["ap"] == pytest.approx(average_precision_score(truth, scores))


@given(st.integers(0, 2**32))
def test_equals_scikit_learn_on_the_pixels_of_shared_patches(seed):
    rng = np.random.default_rng(seed)
    word = np.append(rng.integers(5, size=8), 2)
    other, scores = 5 - word, rng.integers(4, size=9)
    truth = np.concatenate([np.repeat([True, False], pair) for pair in zip(word, other, strict=True)])
    found = named(scores, word.astype(float), other.astype(float))
    assert found["auc"] == pytest.approx(roc_auc_score(truth, np.repeat(scores, 5)))
    assert found["ap"] == pytest.approx(average_precision_score(truth, np.repeat(scores, 5)))


def test_centre_map_is_highest_in_the_middle():
    assert np.argmax(centre_map((3, 5))) == 7
    even = centre_map((2, 4)).reshape(2, 4)
    assert (even[:, 1:3] == even.max()).all()


def test_interval_of_a_difference_reaches_below_zero():
    differences = MeanDifference(np.array([0.5, -0.5, -0.6]), np.ones(3))
    assert differences.value == pytest.approx(-0.2)
    assert differences.least == -1
    assert differences.influence() is not None
