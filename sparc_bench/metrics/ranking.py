"""Ranking with several positives per query, exact in expectation under a random order of tied candidates.

Shapes: Q queries, C candidates. A candidate's place depends only on the scores, never on where it stands in the row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray
from scipy.special import gammaln


@dataclass(frozen=True)
class FirstPositives:
    """Where each query's best positives stand: all that hit rates and ranks depend on.

    Attributes:
        above_Q: candidates that score strictly above the best positive.
        tied_Q: candidates that score the same as the best positive, positives among them; 0 without a positive.
        positive_Q: positives among the tied; 0 for a query that has no positive at all.
    """

    above_Q: Int[ndarray, "Q"]
    tied_Q: Int[ndarray, "Q"]
    positive_Q: Int[ndarray, "Q"]


def first_positives(scores_QC: Float[ndarray, "Q C"], truth_QC: Bool[ndarray, "Q C"]) -> FirstPositives:
    """Locate each query's best-scoring positives among its candidates."""
    best_Q1 = np.where(truth_QC, scores_QC, -np.inf).max(axis=1, initial=-np.inf, keepdims=True)
    tied_QC = (scores_QC == best_Q1) & truth_QC.any(axis=1, keepdims=True)
    return FirstPositives(
        above_Q=(scores_QC > best_Q1).sum(axis=1),
        tied_Q=tied_QC.sum(axis=1),
        positive_Q=(tied_QC & truth_QC).sum(axis=1),
    )


def hit_score(first: FirstPositives, k: int) -> Float[ndarray, "Q"]:
    """Probability that at least one positive is among the best k (R@k as the CLIP literature counts it: a hit rate).

    With `left` = k - above places for a tied block of n with r positives: 1 - C(n - r, left) / C(n, left), the
    hypergeometric chance; 0 where left < 1, 1 where the whole block fits. A query without a positive scores 0.

    >>> hit_score(first_positives(np.zeros((1, 4)), np.array([[True, True, False, False]])), k=1)
    array([0.5])
    """
    n_Q, r_Q = first.tied_Q.astype(np.float64), first.positive_Q.astype(np.float64)
    left_Q = np.clip(k - first.above_Q, 0, n_Q)
    certain_Q = left_Q > n_Q - r_Q
    rest_Q = np.where(certain_Q, 0.0, n_Q - r_Q - left_Q)
    log_miss_Q = gammaln(n_Q - r_Q + 1) - gammaln(rest_Q + 1) - gammaln(n_Q + 1) + gammaln(n_Q - left_Q + 1)
    # A single place is a plain share; the logarithms would return it with rounding noise.
    share_Q = np.divide(r_Q, n_Q, out=np.zeros_like(n_Q), where=n_Q > 0)
    uncertain_Q = np.where(left_Q == 1, share_Q, -np.expm1(np.minimum(log_miss_Q, 0.0)))
    return np.where(r_Q == 0, 0.0, np.where(certain_Q, 1.0, np.where(left_Q == 0, 0.0, uncertain_Q)))


def expected_rank(first: FirstPositives) -> Float[ndarray, "Q"]:
    """Expected place (from 1) of the first positive: above + (n + 1) / (r + 1); infinite without a positive."""
    rank_Q = first.above_Q + (first.tied_Q + 1) / (first.positive_Q + 1)
    return np.where(first.positive_Q == 0, np.inf, rank_Q)


def map_at_r_score(scores_QC: Float[ndarray, "Q C"], truth_QC: Bool[ndarray, "Q C"]) -> Float[ndarray, "Q"]:
    """AP@R of every query: 1/R times the sum over the first R places i of precision(i) where place i is a positive.

    R is the query's number of positives (Musgrave et al. 2020, "A metric learning reality check", section 3.2; used
    for captions by Chun et al. 2022, ECCV Caption). The mean over queries is mAP@R. A query without a positive is NaN.

    Ties are exact in expectation: at the x-th place of a tied block of n with r positives, which starts after p
    positives, a positive stands with probability r/n, and then p + 1 + (x - 1)(r - 1)/(n - 1) positives are expected
    among the places so far.
    """
    count_Q = truth_QC.sum(axis=1)
    order_QC = np.argsort(-scores_QC, axis=1)
    sorted_QC = np.take_along_axis(scores_QC, order_QC, axis=1)
    # No query looks beyond the tied block that its R-th place lies in.
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
