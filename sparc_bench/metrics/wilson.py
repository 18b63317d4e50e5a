"""Wilson's interval of a share."""

from __future__ import annotations

import numpy as np

LEVEL = 0.95
Z = 1.959963984540054
"""The normal quantile of a two-sided 95 % interval."""


def wilson_interval(share: float | int, n: float | int, quantile: float = Z) -> tuple[float, float]:
    """Wilson's 95 % interval of a share among n (Wilson 1927); (0, 1) where n is 0.

    Args:
        share: 0 to 1.
        n: how many; of another statistic than a share the number at which a share would be as sure.
        quantile: of the standard error; Student's where that is estimated from few.

    >>> [round(end, 4) for end in wilson_interval(0.0, 10)]
    [0.0, 0.2775]
    """
    if n <= 0:
        return 0.0, 1.0
    square = quantile * quantile
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = quantile / (1 + square / n) * np.sqrt(share * (1 - share) / n + square / (4 * n * n))
    # at 0 and 1 the ends are exact, whatever the rounding
    low = 0.0 if share <= 0 else float(max(0.0, centre - half))
    high = 1.0 if share >= 1 else float(min(1.0, centre + half))
    return low, high


def student_quantile(freedom: float | int) -> float:
    """Student's quantile of a two-sided 95 % interval.

    >>> round(student_quantile(9), 3), round(student_quantile(float("inf")), 3)
    (2.262, 1.96)
    """
    if not np.isfinite(freedom):
        return Z
    from scipy.special import stdtrit  # late: commands that only read records import no scipy

    return float(stdtrit(freedom, (1 + LEVEL) / 2))
