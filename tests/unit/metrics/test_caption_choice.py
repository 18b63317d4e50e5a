from itertools import permutations

import numpy as np
import pytest

from sparc_bench.metrics.caption_choice import caption_choice

INF = np.inf


def credits(true, false, ties):
    return caption_choice(np.array(true, dtype=float), np.array(false, dtype=float), ties)


def test_every_true_caption_above_every_false_one():
    true = [[0.5, 0.4], [0.5, 0.2], [0.9, INF], [0.1, INF]]
    false = [[0.3, -INF], [0.3, 0.1], [0.8, 0.7], [0.8, 0.0]]
    for ties in ("lose", "expected"):
        credit, tied = credits(true, false, ties)
        assert credit.tolist() == [1, 0, 1, 0]
        assert not tied.any()


def test_a_tie_loses_or_scores_its_chance():
    true = [[0.5, INF], [0.5, INF], [0.5, 0.5], [0.5, 0.9], [0.4, 0.9]]
    false = [[0.5, -INF], [0.5, 0.5], [0.5, -INF], [0.5, 0.1], [0.5, 0.5]]
    credit, tied = credits(true, false, "lose")
    assert credit.tolist() == [0, 0, 0, 0, 0]
    assert tied.tolist() == [True, True, True, True, False]
    credit, tied = credits(true, false, "expected")
    assert credit == pytest.approx([1 / 2, 1 / 3, 1 / 3, 1 / 2, 0])
    assert tied.tolist() == [True, True, True, True, False]


def test_the_chance_is_the_share_of_orders():
    rng = np.random.default_rng(0)
    true, false = rng.integers(0, 3, (40, 2)).astype(float), rng.integers(0, 3, (40, 3)).astype(float)
    found, _ = caption_choice(true, false, "expected")
    orders = list(permutations(range(5)))
    for row in range(40):
        wins = 0
        for order in orders:
            ranked = [*zip(true[row], order[:2], strict=True)], [*zip(false[row], order[2:], strict=True)]
            wins += min(ranked[0]) > max(ranked[1])
        assert found[row] == pytest.approx(wins / len(orders))


def test_what_is_no_number_loses():
    for ties in ("lose", "expected"):
        credit, tied = credits([[np.nan], [0.5]], [[0.1], [np.nan]], ties)
        assert credit.tolist() == [0, 0]
        assert not tied.any()


def test_a_tie_wins_where_the_official_argmax_finds_the_true_caption_first():
    credit, tied = credits([[0.5], [0.5], [0.4], [np.nan]], [[0.5, 0.1], [0.6, 0.5], [0.3, 0.1], [0.1, 0.1]], "win")
    assert credit.tolist() == [1, 0, 1, 0]
    assert tied.tolist() == [True, False, False, False]
