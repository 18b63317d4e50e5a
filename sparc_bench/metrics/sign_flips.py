"""Test of a paired difference: how often would it be as large if the two models' results changed places by chance?

Where two models do not differ, each image's part of the difference could as well have the other sign. The share of all
ways to choose the signs whose sum is as far from 0 as the one that was seen is the p value (Fisher 1935, section 21).
For right and wrong answers this is McNemar's exact test: only images on which one model alone is right have a part.

Shapes: N parts, K parts that are not 0, R ways to choose the signs, L the largest parts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy import ndarray

LEVEL = 0.05
"""P value from which a difference is not clear."""

_SEED = 20240118
_ALL_SIGNS = 14
"""Number of parts up to which every way to choose the signs is counted."""
_DRAWN = 10_000
_SIGNED = 1000
"""Number of parts, the largest, whose signs are drawn; the sum of the others is as good as normal."""
_ROUNDING = 1e-9


def sign_flip_p(part_N: Float[ndarray, "N"]) -> float:
    """Two-sided p value of a difference that is the sum of parts; 1 where all parts are 0.

    Exact where parts are equal but for their sign, or at most 14; else by 10,000 drawn ways, the one that was seen
    among them.

    >>> [sign_flip_p(np.ones(count)) for count in (0, 1, 4, 6)]
    [1.0, 1.0, 0.125, 0.03125]
    >>> sign_flip_p(np.array([1.0] * 9 + [-1.0]))
    0.021484375
    """
    from scipy.special import bdtr  # late: commands that only read records import no scipy

    part_K = part_N[part_N != 0]
    if not len(part_K):
        return 1.0
    size_K = np.abs(part_K)
    seen = abs(float(part_K.sum())) - _ROUNDING * float(size_K.sum())
    if np.ptp(size_K) <= _ROUNDING * size_K.max():
        fewer = min(int(np.count_nonzero(part_K > 0)), int(np.count_nonzero(part_K < 0)))
        return min(1.0, 2 * float(bdtr(fewer, len(part_K), 0.5)))
    if len(size_K) <= _ALL_SIGNS:
        # all signs turned give the same distance, so that the first may stay
        sums_R = size_K[:1]
        for size in size_K[1:]:
            sums_R = np.concatenate([sums_R + size, sums_R - size])
        return float(np.mean(np.abs(sums_R) >= seen))
    return _drawn_p(np.sort(size_K)[::-1], seen)


def _drawn_p(size_K: Float[ndarray, "K"], seen: float) -> float:
    from scipy.special import ndtr

    rng = np.random.default_rng([_SEED, len(size_K)])
    largest_L, rest = size_K[:_SIGNED], float(np.sqrt((size_K[_SIGNED:] ** 2).sum()))
    sums_R = np.zeros(_DRAWN)
    for start in range(0, len(largest_L), 100):
        part_L = largest_L[start : start + 100]
        sums_R += (2.0 * rng.integers(0, 2, (_DRAWN, len(part_L)), dtype=np.int8) - 1) @ part_L
    if rest == 0:
        return float((1 + np.count_nonzero(np.abs(sums_R) >= seen)) / (1 + _DRAWN))
    tails_R = ndtr((-seen - sums_R) / rest) + ndtr((-seen + sums_R) / rest)
    return float((1 + tails_R.sum()) / (1 + _DRAWN))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P values corrected for their number (Holm 1979): the chance of one false verdict in all stays under the level.

    NaN (nothing to compare) stays NaN and counts for nothing.

    >>> holm([0.01, 0.04, 0.03])
    (0.03, 0.06, 0.06)
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if p == p)
    corrected, least = [float("nan")] * len(p_values), 0.0
    for rank, (p, place) in enumerate(known):
        least = max(least, min(1.0, p * (len(known) - rank)))
        corrected[place] = least
    return tuple(corrected)
