from itertools import permutations

import numpy as np
import pytest

from sparc_bench.metrics import ranking
from sparc_bench.metrics.ranking import (
    expected_rank,
    first_positives,
    first_positives_of_columns,
    first_positives_of_rows,
    hit_score,
    map_at_r_score,
)

SCORES = np.array([0.9, 0.5, 0.5, 0.1])


def brute_force(scores, truth, k):
    """Mean over every order that respects the scores: hit at k, rank of the first positive, AP@R."""
    orders = [o for o in permutations(range(len(scores))) if all(np.diff(scores[list(o)]) <= 0)]
    hits, ranks, precisions = [], [], []
    for order in orders:
        found = truth[list(order)]
        hits.append(found[:k].any())
        ranks.append(1 + int(found.argmax()))
        r = int(truth.sum())
        precisions.append(sum(found[: i + 1].mean() for i in range(r) if found[i]) / r)
    return np.mean(hits), np.mean(ranks), np.mean(precisions)


def test_worked_by_hand_without_ties():
    scores = np.array([[4.0, 3.0, 2.0, 1.0]])
    truth = np.array([[False, True, False, True]])
    first = first_positives(scores, truth)
    assert hit_score(first, 1)[0] == 0
    assert hit_score(first, 2)[0] == 1
    assert expected_rank(first)[0] == 2
    # R = 2: the first place is wrong, the second right with precision 1/2, over R = 2
    assert map_at_r_score(scores, truth)[0] == 0.25


def test_worked_by_hand_with_ties():
    truth = np.array([[False, True, False, False]])
    first = first_positives(SCORES[None], truth)
    assert [hit_score(first, k)[0] for k in (1, 2, 3)] == [0, 0.5, 1]
    assert expected_rank(first)[0] == 2.5


def test_two_positives_in_a_tie_are_hypergeometric():
    first = first_positives(np.zeros((1, 5)), np.array([[True, True, False, False, False]]))
    # 1 - C(3, 2) / C(5, 2) = 1 - 3 / 10
    assert hit_score(first, 2)[0] == pytest.approx(0.7, abs=1e-12)
    assert expected_rank(first)[0] == 2


@pytest.mark.parametrize("seed", range(25))
def test_equals_the_mean_over_all_orders(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, size=6).astype(float)
    truth = np.zeros(6, dtype=bool)
    truth[rng.choice(6, size=int(rng.integers(1, 6)), replace=False)] = True
    first = first_positives(scores[None], truth[None])
    for k in (1, 2, 4):
        hit, rank, precision = brute_force(scores, truth, k)
        assert hit_score(first, k)[0] == pytest.approx(hit, abs=1e-12)
        assert expected_rank(first)[0] == pytest.approx(rank, abs=1e-12)
        assert map_at_r_score(scores[None], truth[None])[0] == pytest.approx(precision, abs=1e-12)


def test_all_equal_is_chance():
    first = first_positives(np.ones((3, 20)), np.arange(20)[None] == np.array([[0], [7], [19]]))
    for k in (1, 5, 10):
        np.testing.assert_allclose(hit_score(first, k), k / 20, atol=1e-12)
    np.testing.assert_allclose(expected_rank(first), 10.5)


def test_large_ties_stay_exact():
    first = first_positives(np.zeros((1, 25_000)), np.arange(25_000)[None] < 5)
    miss = np.prod([(25_000 - 5 - i) / (25_000 - i) for i in range(10)])
    assert hit_score(first, 10)[0] == pytest.approx(1 - miss, rel=1e-6)


def test_k_beyond_the_candidates_is_certain():
    assert hit_score(first_positives(np.zeros((1, 3)), np.array([[True, False, False]])), 10)[0] == 1


def test_a_query_without_a_positive():
    scores, truth = np.zeros((1, 3)), np.zeros((1, 3), dtype=bool)
    first = first_positives(scores, truth)
    assert hit_score(first, 2)[0] == 0
    assert np.isinf(expected_rank(first)[0])
    assert np.isnan(map_at_r_score(scores, truth)[0])


def test_no_query_at_all():
    scores, truth = np.zeros((0, 3)), np.zeros((0, 3), dtype=bool)
    assert hit_score(first_positives(scores, truth), 1).shape == (0,)
    assert map_at_r_score(scores, truth).shape == (0,)


def test_order_of_candidates_does_not_matter():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, size=(8, 30)).astype(float)
    truth = rng.random((8, 30)) < 0.2
    truth[:, 0] = True
    order = rng.permutation(30)
    before, after = first_positives(scores, truth), first_positives(scores[:, order], truth[:, order])
    np.testing.assert_array_equal(hit_score(before, 5), hit_score(after, 5))
    np.testing.assert_allclose(
        map_at_r_score(scores, truth), map_at_r_score(scores[:, order], truth[:, order]), atol=1e-12
    )


def same(left, right):
    for name in ("above_Q", "tied_Q", "positive_Q"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), err_msg=name)


def test_named_positives_worked_by_hand():
    scores = np.array([[4.0, 3.0, 2.0], [1.0, 1.0, 0.0]])
    # query 0 has the positives of column 1 and 2, query 1 that of column 0; column 0 is there twice
    rows = first_positives_of_rows(scores, np.array([0, 0, 1]), np.array([1, 2, 0]), np.array([0]))
    assert (rows.above_Q.tolist(), rows.tied_Q.tolist(), rows.positive_Q.tolist()) == ([2, 0], [1, 3], [1, 1])
    # queries are columns 2, 0, 0, their positives rows 1, 0, 1
    columns = first_positives_of_columns(scores, np.array([2, 0, 0]), np.array([1, 0, 1]))
    assert (columns.above_Q.tolist(), columns.tied_Q.tolist()) == ([1, 0, 1], [1, 1, 1])
    assert columns.positive_Q.tolist() == [1, 1, 1]


@pytest.mark.parametrize("seed", range(20))
def test_named_positives_are_the_same_as_a_matrix_of_truth(seed, monkeypatch):
    monkeypatch.setattr(ranking, "_ROWS_AT_ONCE", 5)
    rng = np.random.default_rng(seed)
    rows, columns, candidates = 17, 23, 40
    scores = rng.integers(0, 5, size=(rows, columns)).astype(np.float32) if seed % 2 else rng.random((rows, columns))
    column_of = np.concatenate([np.arange(columns), rng.integers(0, columns, size=candidates - columns)])
    owner = rng.integers(0, rows, size=candidates)  # some rows own no candidate
    truth = np.arange(rows)[:, None] == owner
    found = first_positives_of_rows(scores, owner, column_of, column_of[columns:])
    plain = first_positives(scores[:, column_of], truth)
    same(found, plain)
    asked = rng.permutation(candidates)[:30]  # some columns are asked for twice, some never
    found = first_positives_of_columns(scores, column_of[asked], owner[asked])
    same(found, first_positives(scores[:, column_of[asked]].T, truth[:, asked].T))


def test_many_candidates_above_in_a_column():
    scores = np.arange(1000.0)[:, None]
    found = first_positives_of_columns(scores, np.array([0]), np.array([100]))
    assert (found.above_Q.tolist(), found.tied_Q.tolist()) == ([899], [1])
