"""Uncertainty of a metric over training seeds and images, for one recipe or for the difference of two.

The value is the mean over the seeds. Its variance is the sum of two: over images, from the influence of each image on
the mean over all seeds, because all were tested on the same images; and over trainings, the variance of T seeds divided
by T. Two compared recipes share the images and have separate seeds. The interval is made as in
`sparc_bench.metrics.estimate`, with Student's quantile at the degrees of freedom of a sum of variances (Satterthwaite
1946; Welch 1947): T - 1 for the seeds of a recipe, many for images. Only if seeds differ is it much wider.

Variances of seeds and images added up count the interaction of seed and image twice, so that intervals are somewhat too
wide if seeds differ by nothing else (Owen 2007, doi 10.1214/07-AOAS122). Equal seeds give the interval over images
alone. So does a single seed (`SeedsEstimate.one_seed`), whose interval lacks the spread over trainings.

Shapes: T trainings of a recipe.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtr

from sparc_bench.metrics.estimate import NO_SPREAD, Estimate, difference_half, ends, influence_of
from sparc_bench.metrics.sign_flips import sign_flip_p
from sparc_bench.metrics.statistic import Statistic
from sparc_bench.metrics.wilson import Z, wilson_interval


@dataclass(frozen=True)
class SeedsEstimate(Estimate):
    """A value with its uncertainty over training seeds and images; `method` is as for images alone.

    Attributes:
        seeds: number of trainings of the recipe, or of both recipes of a difference.
        p: of a difference the two-sided p value of none, for images and, with several seeds, for trainings too (the
            larger of both); NaN for one recipe.
    """

    seeds: tuple[int, ...] = ()
    p: float = float("nan")

    @property
    def one_seed(self) -> bool:
        """Whether a recipe has a single training, so that the interval lacks the spread over trainings."""
        return min(self.seeds) == 1


def over_seeds(statistics: Sequence[Statistic]) -> SeedsEstimate:
    """Estimate of a metric's mean over the seeds of one recipe.

    Args:
        statistics: one statistic per seed, of the same images; a seed whose value is NaN is left out.
    """
    return _estimate([statistics])


def seeds_difference(a: Sequence[Statistic], b: Sequence[Statistic]) -> SeedsEstimate:
    """Estimate of the mean over the seeds of `a` minus that of `b`, with separate seeds and shared images."""
    return _estimate([a, b])


def degrees_of_freedom(variances: Sequence[float], freedoms: Sequence[float | int]) -> float | int:
    """Degrees of freedom of a sum of variances with `freedoms` each (Satterthwaite 1946).

    >>> degrees_of_freedom([2.0, 2.0], [2, 2])
    4.0
    >>> degrees_of_freedom([1.0, 0.0], [float("inf"), 2])
    inf
    """
    unsure = sum(variance**2 / freedom for variance, freedom in zip(variances, freedoms, strict=True))
    return sum(variances) ** 2 / unsure if unsure > 0 else float("inf")


def _estimate(sides: Sequence[Sequence[Statistic]]) -> SeedsEstimate:
    """Estimate of the first side's mean minus that of the other, if there is one."""
    clusters = {statistic.clusters for side in sides for statistic in side}
    if len(clusters) != 1:
        raise RuntimeError(f"seeds of {sorted(clusters)} clusters")
    (images,) = clusters
    values = [np.array([statistic.value if images else np.nan for statistic in side]) for side in sides]
    sides = [[s for s, v in zip(side, of, strict=True) if v == v] for side, of in zip(sides, values, strict=True)]
    values = [of[~np.isnan(of)] for of in values]
    counts = tuple(len(of) for of in values)
    if min(counts) == 0:
        nothing = float("nan")
        return SeedsEstimate(nothing, nothing, nothing, nothing, 0, "equal", 0.0, counts)
    everything = [statistic for side in sides for statistic in side]
    least, most = min(each.least for each in everything), max(each.most for each in everything)
    reach = most - least
    signs = [1, *[-1] * (len(sides) - 1)]
    value = float(sum(sign * of.mean() for sign, of in zip(signs, values, strict=True)))
    occupied = min(each.occupied for each in everything)
    weights = [sign / count for sign, count, side in zip(signs, counts, sides, strict=True) for _ in side]
    influence = influence_of(everything, weights)
    between = [float(of.var(ddof=1)) / len(of) if len(of) > 1 else 0.0 for of in values]
    variance = influence.variance + sum(between)
    freedom = degrees_of_freedom(
        [influence.variance, *between], [influence.freedom, *(max(1, count - 1) for count in counts)]
    )
    se = variance**0.5
    spread = se > NO_SPREAD * reach
    p = float("nan")
    if len(sides) == 2:
        p = sign_flip_p(influence.parts_N)
        if sum(between) > 0:
            p = max(p, 2 * float(stdtr(freedom, -abs(value) / se)))
    if spread and len(sides) == 1:
        low, high = ends(everything[0], value, se, influence.bias, freedom)
    elif spread:
        half = difference_half(influence, sum(between), freedom)
        low, high = max(-reach, value - half), min(reach, value + half)
    else:
        n = min(each.effective_n for each in everything)
        if len(sides) == 1:
            low, high = (least + reach * end for end in wilson_interval((value - least) / reach, n))
        else:
            half = reach * wilson_interval(0.0, n)[1]
            low, high = max(-reach, value - half), min(reach, value + half)
        return SeedsEstimate(value, (high - low) / (2 * Z), low, high, occupied, "equal", 0.0, counts, p)
    return SeedsEstimate(value, se, low, high, occupied, influence.method, influence.bias, counts, p)
