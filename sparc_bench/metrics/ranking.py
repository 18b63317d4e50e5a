"""Retrieval metrics (R@k, rank, AP@R) with several positives per query; ties get the mean over random orders.

Shapes: Q queries, C candidates, U columns of a score matrix, P positives, E repeated candidates, X rows of a block, R
queries that share the column of an earlier one. Ranks depend on the scores alone, never on the order of candidates.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.special import gammaln

_ROWS_AT_ONCE = 255


@dataclass(frozen=True)
class FirstPositives:
    """Positions of each query's best-scoring positives, from which hit rates and ranks follow.

    Attributes:
        above_Q: number of candidates with a higher score than the best positive.
        tied_Q: number of candidates with the best positive's score, positives included; 0 without a positive.
        positive_Q: number of positives among the tied; 0 without a positive.
    """

    above_Q: Int[ndarray, "Q"]
    tied_Q: Int[ndarray, "Q"]
    positive_Q: Int[ndarray, "Q"]


def first_positives(scores_QC: Float[ndarray, "Q C"], truth_QC: Bool[ndarray, "Q C"]) -> FirstPositives:
    """Positions of each query's best-scoring positives among its candidates."""
    best_Q1 = np.where(truth_QC, scores_QC, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    tied_QC = (scores_QC == best_Q1) & truth_QC.any(axis=1, keepdims=True)
    return FirstPositives(
        above_Q=(scores_QC > best_Q1).sum(axis=1),
        tied_Q=tied_QC.sum(axis=1),
        positive_Q=(tied_QC & truth_QC).sum(axis=1),
    )


def first_positives_of_rows(
    scores_QU: Float[ndarray, "Q U"],
    query_P: Int[ndarray, "P"],
    column_P: Int[ndarray, "P"],
    repeated_E: Int[ndarray, "E"],
) -> FirstPositives:
    """Ranks as of `first_positives`, from a list of positives in place of a Q x C truth matrix.

    Args:
        scores_QU: one row per query.
        query_P: row of each positive.
        column_P: column of each positive; a column listed twice for a query is two positives of equal score.
        repeated_E: columns that count as one more candidate each (equal captions are scored once).
    """
    positive_P = scores_QU[query_P, column_P]
    best_Q = np.full(len(scores_QU), -np.inf, dtype=scores_QU.dtype)
    np.maximum.at(best_Q, query_P, positive_P)
    above_Q, tied_Q = np.zeros(len(scores_QU), dtype=np.int64), np.zeros(len(scores_QU), dtype=np.int64)
    for query, (score_U, best) in enumerate(zip(scores_QU, best_Q, strict=True)):
        again = score_U[repeated_E]
        above_Q[query] = np.count_nonzero(score_U > best) + np.count_nonzero(again > best)
        tied_Q[query] = np.count_nonzero(score_U == best) + np.count_nonzero(again == best)
    positives_Q = np.bincount(query_P, minlength=len(scores_QU))
    return FirstPositives(
        above_Q=above_Q,
        tied_Q=np.where(positives_Q == 0, 0, tied_Q),
        positive_Q=np.bincount(query_P[positive_P == best_Q[query_P]], minlength=len(scores_QU)),
    )


def first_positives_of_columns(
    scores_CU: Float[ndarray, "C U"], column_Q: Int[ndarray, "Q"], positive_Q: Int[ndarray, "Q"]
) -> FirstPositives:
    """Ranks as of `first_positives`, for queries that are columns with one positive each, without a transposed copy.

    Args:
        scores_CU: one row per candidate.
        column_Q: column of each query; several queries may share one.
        positive_Q: row of each query's positive.
    """
    queries = len(column_Q)
    best_Q = scores_CU[positive_Q, column_Q]
    # the first query of a column is counted without a copy of the scores, later queries of it with one
    first_U = np.full(scores_CU.shape[1], -1)
    first_U[column_Q[::-1]] = np.arange(queries)[::-1]
    asked_U = first_U >= 0
    best_U = np.where(asked_U, best_Q[first_U], np.inf) if queries else np.full(len(first_U), np.inf)
    best_U = best_U.astype(scores_CU.dtype)
    later_R = np.setdiff1d(np.arange(queries), first_U[asked_U])
    above_Q, tied_Q = np.zeros(queries, dtype=np.int64), np.zeros(queries, dtype=np.int64)
    for start in range(0, len(scores_CU), _ROWS_AT_ONCE):
        block_XU = scores_CU[start : start + _ROWS_AT_ONCE]
        above_Q[first_U[asked_U]] += _true_in_columns(block_XU > best_U)[asked_U]
        tied_Q[first_U[asked_U]] += _true_in_columns(block_XU == best_U)[asked_U]
        if len(later_R):
            block_XR = block_XU[:, column_Q[later_R]]
            above_Q[later_R] += _true_in_columns(block_XR > best_Q[later_R])
            tied_Q[later_R] += _true_in_columns(block_XR == best_Q[later_R])
    return FirstPositives(above_Q, tied_Q, (tied_Q > 0).astype(np.int64))


def _true_in_columns(block_XU: Bool[ndarray, "X U"]) -> Int[ndarray, "U"]:
    # sums in bytes are many times faster than 64-bit sums of booleans, and hold for at most 255 rows
    count_U: Int[ndarray, "U"] = np.add.reduce(block_XU.view(np.uint8), axis=0, dtype=np.uint8).astype(np.int64)
    return count_U


def hit_score(first: FirstPositives, k: int) -> Float[ndarray, "Q"]:
    """Probability that at least one positive is among the best k (R@k of the CLIP literature, a hit rate).

    With `left` = k - above places for a tied block of n with r positives: 1 - C(n - r, left) / C(n, left), the
    hypergeometric probability; 0 for left < 1, 1 if the whole block fits. A query without a positive scores 0.

    >>> hit_score(first_positives(np.zeros((1, 4)), np.array([[True, True, False, False]])), k=1)
    array([0.5])
    """
    n_Q, r_Q = first.tied_Q.astype(np.float64), first.positive_Q.astype(np.float64)
    left_Q = np.clip(k - first.above_Q, 0, n_Q)
    certain_Q = left_Q > n_Q - r_Q
    rest_Q = np.where(certain_Q, 0.0, n_Q - r_Q - left_Q)
    log_miss_Q = gammaln(n_Q - r_Q + 1) - gammaln(rest_Q + 1) - gammaln(n_Q + 1) + gammaln(n_Q - left_Q + 1)
    # a single place has probability r / n, exactly; through logarithms it would have rounding errors
    share_Q = np.divide(r_Q, n_Q, out=np.zeros_like(n_Q), where=n_Q > 0)
    uncertain_Q = np.where(left_Q == 1, share_Q, -np.expm1(np.minimum(log_miss_Q, 0.0)))
    return np.where(r_Q == 0, 0.0, np.where(certain_Q, 1.0, np.where(left_Q == 0, 0.0, uncertain_Q)))


def expected_rank(first: FirstPositives) -> Float[ndarray, "Q"]:
    """Expected rank (from 1) of the first positive: above + (n + 1) / (r + 1); infinite without a positive."""
    rank_Q = first.above_Q + (first.tied_Q + 1) / (first.positive_Q + 1)
    return np.where(first.positive_Q == 0, np.inf, rank_Q)


def map_at_r_score(scores_QC: Float[ndarray, "Q C"], truth_QC: Bool[ndarray, "Q C"]) -> Float[ndarray, "Q"]:
    """AP@R of every query: 1/R times the sum of precision(i) over those of the first R ranks i that hold a positive.

    R is the query's number of positives (Musgrave et al. 2020, "A metric learning reality check", section 3.2; used
    for captions by Chun et al. 2022, ECCV Caption). The mean over queries is mAP@R. NaN for a query without a positive.

    Ties get the exact mean over random orders: rank x of a tied block of n candidates with r positives, after p
    positives ahead of the block, holds a positive with probability r/n, and then p + 1 + (x - 1)(r - 1)/(n - 1)
    positives are expected up to that rank.
    """
    count_Q = truth_QC.sum(axis=1)
    order_QC = np.argsort(-scores_QC, axis=1)
    sorted_QC = np.take_along_axis(scores_QC, order_QC, axis=1)
    # AP@R of a query depends on no candidate below the tied block of rank R
    last_Q1 = np.take_along_axis(sorted_QC, np.maximum(count_Q - 1, 0)[:, None], axis=1)
    candidates = int((sorted_QC >= last_Q1).sum(axis=1).max(initial=0))
    sorted_QC, order_QC = sorted_QC[:, :candidates], order_QC[:, :candidates]
    positives_QC = np.cumsum(np.take_along_axis(truth_QC, order_QC, axis=1), axis=1)
    place_C = np.arange(candidates)
    opens_QC = np.ones(sorted_QC.shape, dtype=bool)
    opens_QC[:, 1:] = sorted_QC[:, 1:] != sorted_QC[:, :-1]
    closes_QC = np.ones(sorted_QC.shape, dtype=bool)
    closes_QC[:, :-1] = opens_QC[:, 1:]
    start_QC = np.maximum.accumulate(np.where(opens_QC, place_C, 0), axis=1)
    end_QC = np.minimum.accumulate(np.where(closes_QC, place_C, candidates)[:, ::-1], axis=1)[:, ::-1]
    before_QC = np.where(start_QC > 0, np.take_along_axis(positives_QC, np.maximum(start_QC - 1, 0), axis=1), 0)
    r_QC = np.take_along_axis(positives_QC, end_QC, axis=1) - before_QC
    n_QC = end_QC - start_QC + 1
    others_QC = (place_C - start_QC) * (r_QC - 1) / np.maximum(n_QC - 1, 1)
    gain_QC = r_QC / n_QC * (before_QC + 1 + others_QC) / (place_C + 1)
    total_Q = np.where(place_C < count_Q[:, None], gain_QC, 0.0).sum(axis=1)
    score_Q = np.full(len(count_Q), np.nan)
    np.divide(total_Q, count_Q, out=score_Q, where=count_Q > 0)
    return score_Q
