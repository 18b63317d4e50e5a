"""Uncertainty of any statistic over images, alone or as the paired difference of two models; nothing is drawn.

The standard error comes from the influence of each cluster (`sparc_bench.metrics.influence`). The 95 % interval is
Wilson's (1927) for as many answers as would leave a share equally unsure (as Dean and Pagano 2015 do for clustered
samples, doi 10.1093/jssam/smv024), with Student's quantile where the variance is itself estimated: it stays within what
is possible, and is not symmetric near its ends. Statistics that are biased on few images (AP upward, mIoU downward)
have their interval about the value without the estimated bias, whose size counts as a second standard error.
`python -m sparc_bench.cost.coverage` simulates how often the intervals hold the truth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparc_bench.metrics.influence import Influence, weighted_sum
from sparc_bench.metrics.sign_flips import sign_flip_p
from sparc_bench.metrics.statistic import Statistic
from sparc_bench.metrics.wilson import Z, student_quantile, wilson_interval

METHOD = 2
"""Version of the methods by which intervals are computed; 1: a bootstrap over images."""

NO_SPREAD = 1e-9
"""Standard error, in parts of the range, that rounding alone explains."""


@dataclass(frozen=True)
class Estimate:
    """A value with its uncertainty over images.

    Attributes:
        value: the metric itself, NaN where there is nothing to average.
        se: standard error (where no image differs from another: half the interval over 1.96).
        low: lower end of the 95 % interval.
        high: upper end.
        clusters: how many clusters hold anything that was scored.
        method: "wilson" for means, "jackknife" for other statistics, "equal" where no image differs from another.
        bias: estimated excess of the value over its expectation on unlimited images; 0 for means.
    """

    value: float
    se: float
    low: float
    high: float
    clusters: int
    method: str
    bias: float | int = 0.0


@dataclass(frozen=True)
class PairedEstimate(Estimate):
    """A difference of two models on the same images.

    Attributes:
        p: two-sided p value of no difference (`sparc_bench.metrics.sign_flips`); NaN where there is nothing to compare.
        differing: images on which the models differ; None where an image has no score of its own (AP, AUROC, mIoU).
    """

    p: float = float("nan")
    differing: int | None = None


def estimate(statistic: Statistic) -> Estimate:
    """The estimate of one statistic.

    Where all images agree (all right, all wrong, one image) there is no spread to estimate: Wilson's interval has the
    number of clusters as n; for a mean over classes the number of classes times the clusters of the rarest one, if that
    is less.
    """
    occupied = statistic.occupied
    value = statistic.value if statistic.clusters else float("nan")
    if np.isnan(value):
        return Estimate(value, float("nan"), float("nan"), float("nan"), occupied, "equal")
    influence = statistic.influence()
    reach = statistic.most - statistic.least
    se = influence.variance**0.5
    if se <= NO_SPREAD * reach:
        low, high = statistic.interval_without_spread(value)
        return Estimate(value, (high - low) / (2 * Z), low, high, occupied, "equal")
    low, high = ends(statistic, value, se, influence.bias, influence.freedom)
    return Estimate(value, se, low, high, occupied, influence.method, influence.bias)


def ends(statistic: Statistic, value: float, se: float, bias: float | int, freedom: float | int) -> tuple[float, float]:
    """Ends of the 95 % interval of a statistic, which it takes its range from.

    Args:
        statistic: whose value it is.
        value: of it, or of several like it.
        se: standard error of the value.
        bias: of the value.
        freedom: degrees of freedom of the standard error.
    """
    reach = statistic.most - statistic.least
    share = (value - statistic.least) / reach
    # a correction for bias goes at most half of the way to an end of the range
    centre = float(np.clip(share - bias / reach, share / 2, (1 + share) / 2))
    error = float(np.hypot(se, bias)) / reach
    n = min(centre * (1 - centre) / error**2, statistic.most_n)
    low, high = wilson_interval(centre, n, student_quantile(freedom))
    return statistic.least + reach * low, statistic.least + reach * high


def influence_of(statistics: list[Statistic], weights: list[float]) -> Influence:
    """Influence of each image on a weighted sum of statistics of the same images."""
    together = statistics[0].weighted_sum(statistics, weights) if len(statistics) > 1 else None
    if together is not None:
        return together.influence()
    return weighted_sum([statistic.influence() for statistic in statistics], weights)


def paired_difference(a: Statistic, b: Statistic) -> PairedEstimate:
    """The first minus the second: two models on the same images, row for row.

    The interval adds a difference in each direction to those seen (Bonett and Price 2012, doi
    10.3102/1076998611411915), so that with few images that differ it leaves out 0 about where the exact test does.
    Where none differs it is the difference plus and minus Wilson's upper end for 0 of the number of images.
    """
    if a.clusters != b.clusters:
        raise RuntimeError(f"paired statistics of {a.clusters} and {b.clusters} clusters")
    occupied = min(a.occupied, b.occupied)
    difference = a.value - b.value if a.clusters else float("nan")
    if np.isnan(difference):
        nothing = float("nan")
        return PairedEstimate(difference, nothing, nothing, nothing, occupied, "equal")
    influence = influence_of([a, b], [1.0, -1.0])
    parts_N = influence.parts_N
    p, differing = sign_flip_p(parts_N), int(np.count_nonzero(parts_N))
    images = differing if influence.of_images else None
    reach = max(a.most, b.most) - min(a.least, b.least)
    se = influence.variance**0.5
    if differing == 0 or se <= NO_SPREAD * reach:
        half = reach * wilson_interval(0.0, min(a.effective_n, b.effective_n))[1]
        low, high = max(-reach, difference - half), min(reach, difference + half)
        return PairedEstimate(difference, half / Z, low, high, occupied, "equal", 0.0, p, images)
    half = difference_half(influence)
    low, high = max(-reach, difference - half), min(reach, difference + half)
    return PairedEstimate(difference, se, low, high, occupied, influence.method, influence.bias, p, images)


def difference_half(influence: Influence, between: float = 0.0, freedom: float | int | None = None) -> float:
    """Half of a difference's 95 % interval.

    Args:
        influence: of each image on the difference.
        between: variance of the difference over trainings.
        freedom: degrees of freedom of all variance; None: of the influence.
    """
    differing = max(1, int(np.count_nonzero(influence.parts_N)))
    variance = influence.variance * (1 + 2 / differing) + between + influence.bias**2
    return student_quantile(influence.freedom if freedom is None else freedom) * float(np.sqrt(variance))
