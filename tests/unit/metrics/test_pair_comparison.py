import numpy as np
import pytest

from sparc_bench.metrics.pair_comparison import compare_pairs


def only(scores, ties, to_image=None):
    scores = np.array([scores], dtype=float)
    to_image = scores if to_image is None else np.array([to_image], dtype=float)
    result = compare_pairs(scores, to_image, ties)
    return float(result.text_G[0]), float(result.image_G[0]), float(result.group_G[0]), bool(result.tied_G[0])


@pytest.mark.parametrize("ties", ["expected", "lose"])
def test_worked_by_hand_without_ties(ties):
    assert only([[2, 1], [0, 3]], ties) == (1, 1, 1, False)
    # image 0 prefers caption 0 and image 1 caption 1, but caption 0 prefers image 1
    assert only([[2, 1], [3, 4]], ties) == (1, 0, 0, False)
    assert only([[2, 3], [1, 4]], ties) == (0, 1, 0, False)
    assert only([[1, 2], [2, 1]], ties) == (0, 0, 0, False)


def test_all_equal_is_chance_or_nothing():
    assert only([[1, 1], [1, 1]], "expected") == pytest.approx((1 / 4, 1 / 4, 1 / 6, True))
    assert only([[1, 1], [1, 1]], "lose") == (0, 0, 0, True)


def test_one_tie_is_half():
    assert only([[2, 2], [0, 3]], "expected") == pytest.approx((0.5, 1, 0.5, True))
    assert only([[2, 2], [0, 3]], "lose") == (0, 1, 0, True)


def test_two_different_matrices():
    assert only([[1, 0], [0, 1]], "lose", to_image=[[0, 1], [1, 0]]) == (1, 0, 0, False)


def test_random_scores_are_chance():
    scores = np.random.default_rng(0).normal(size=(20_000, 2, 2))
    result = compare_pairs(scores, scores, "lose")
    for credit, chance in ((result.text_G, 1 / 4), (result.image_G, 1 / 4), (result.group_G, 1 / 6)):
        assert credit.mean() == pytest.approx(chance, abs=4 * np.sqrt(chance * (1 - chance) / 20_000))


def test_own_pairs():
    result = compare_pairs(np.array([[[3.0, 1.0], [2.0, 1.5]]]), np.array([[[3.0, 1.0], [2.0, 1.5]]]), "lose")
    # image 0 and caption 0 prefer each other; image 1 prefers caption 0
    np.testing.assert_array_equal(result.own_G2, [[1, 0]])


def test_a_tie_wins_where_it_is_asked_to():
    assert only([[1, 1], [1, 1]], "win") == (1, 1, 1, True)
    assert only([[2, 3], [1, 4]], "win") == only([[2, 3], [1, 4]], "lose")
