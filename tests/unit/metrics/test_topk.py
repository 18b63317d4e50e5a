import numpy as np
import pytest
from sklearn.metrics import top_k_accuracy_score

from sparc_bench.metrics.topk import topk_score


def test_worked_by_hand():
    scores = np.array([[3.0, 1.0, 2.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    label = np.array([2, 0, 1])
    np.testing.assert_allclose(topk_score(scores, label, 1), [0, 1 / 2, 1 / 3])
    np.testing.assert_allclose(topk_score(scores, label, 2), [1, 1, 2 / 3])


def test_all_equal_is_k_of_c():
    np.testing.assert_allclose(topk_score(np.zeros((4, 10)), np.arange(4), 5), 0.5)


@pytest.mark.parametrize("k", [1, 3])
def test_equals_scikit_learn_without_ties(k):
    rng = np.random.default_rng(k)
    scores, label = rng.normal(size=(50, 7)), rng.integers(0, 7, size=50)
    assert topk_score(scores, label, k).mean() == pytest.approx(
        top_k_accuracy_score(label, scores, k=k, labels=np.arange(7))
    )


def test_no_images():
    assert topk_score(np.zeros((0, 3)), np.zeros(0, dtype=np.int64), 1).shape == (0,)
