"""Wilson's interval of a share."""

from __future__ import annotations

import numpy as np

LEVEL = 0.95
Z = 1.959963984540054
"""The normal quantile of a two-sided 95 % interval."""


def wilson_interval(share: float | int, n: float | int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share among n (Wilson 1927); (0, 1) where n is 0.

    >>> [round(end, 4) for end in wilson_interval(0.0, 10)]
    [0.0, 0.2775]
    """
    if n <= 0:
        return 0.0, 1.0
    centre = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * np.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    # at 0 and 1 the ends are exact, whatever the rounding
    low = 0.0 if share <= 0 else float(max(0.0, centre - half))
    high = 1.0 if share >= 1 else float(min(1.0, centre + half))
    return low, high
