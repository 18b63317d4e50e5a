"""AUROC, AP by object and the best F1 against scikit-learn, ties, weights and all."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_recall_curve, roc_auc_score

from sparc_bench.metrics.presence import Auroc, ObjectAP, best_f1_threshold

QUESTIONS, IMAGES, OBJECTS = 240, 40, 6


@pytest.fixture(params=[3, 30, 10_000], ids=["many ties", "some ties", "no ties"])
def drawn(request):
    """Scores of few or many values, with images that are asked nothing."""
    rng = np.random.default_rng(request.param)
    image_Q = np.sort(rng.integers(2, IMAGES, QUESTIONS))
    object_Q = rng.integers(0, OBJECTS, QUESTIONS)
    yes_Q = (rng.random(QUESTIONS) < 0.4) & (object_Q != 5)
    score_Q = (rng.integers(0, request.param, QUESTIONS) + yes_Q).astype(float)
    weights_G = rng.integers(0, 4, IMAGES).astype(float)
    return score_Q, image_Q, object_Q, yes_Q, weights_G


def test_auroc(drawn):
    score_Q, image_Q, object_Q, yes_Q, weights_G = drawn
    ours = Auroc.of(score_Q, image_Q, object_Q, yes_Q, IMAGES)
    assert ours.value == pytest.approx(roc_auc_score(yes_Q, score_Q), abs=1e-12)
    expected = roc_auc_score(yes_Q, score_Q, sample_weight=weights_G[image_Q])
    assert ours.values_S(weights_G[None])[0] == pytest.approx(expected, abs=1e-12)


def test_object_ap(drawn):
    score_Q, image_Q, object_Q, yes_Q, weights_G = drawn
    ours = ObjectAP.of(score_Q, image_Q, object_Q, yes_Q, IMAGES)
    for weights in (np.ones(IMAGES), weights_G):
        each = [
            average_precision_score(yes_Q[of], score_Q[of], sample_weight=weights[image_Q[of]])
            for of in (object_Q == label for label in range(5))
        ]
        assert ours.values_S(weights[None])[0] == pytest.approx(np.mean(each), abs=1e-12)


def test_best_f1(drawn):
    score_Q, _, _, yes_Q, _ = drawn
    precision, recall, _ = precision_recall_curve(yes_Q, score_Q)
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    assert f1_score(yes_Q, score_Q >= best_f1_threshold(score_Q, yes_Q)) == pytest.approx(best, abs=1e-12)
