"""Uncertainty of a metric over training seeds and images, for one recipe or for the difference of two.

The value is the mean over the seeds. A resample draws T of the T seeds with replacement, and one set of images for all
of them, because all were tested on the same images; two compared recipes share the images and draw seeds separately.
The interval is the resamples' percentiles about the value, shifted by their bias as in `bootstrap_all`. Few seeds need
two corrections; without them a 95 % interval of three to five seeds covers about 80 %:

- a seed's deviation from the mean is multiplied by sqrt(T / (T - 1)), because resampled means of T values vary less
  than the mean of T values by that factor (the narrowness bias: Hesterberg 2015, arXiv 1411.5279, section 3.2);
- the interval is widened by the ratio of Student's to the normal quantile (section 4.2 there), at the degrees of
  freedom of a sum of variances (Satterthwaite 1946; Welch 1947): T - 1 for the seeds of a recipe, infinite for images.
  The widening is therefore large only if the seeds differ.

Separate draws of seeds and images count the interaction of seed and image more than once, so that intervals are
somewhat too wide if seeds differ by nothing else (Owen 2007, doi 10.1214/07-AOAS122). Equal seeds give the interval
over images alone. So does a single seed (`SeedsEstimate.one_seed`), whose interval lacks the spread over trainings.

Shapes: S resamples, G clusters (images), T trainings of a recipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.special import stdtrit

from sparc_bench.metrics.bootstrap import Estimate, cluster_weights, resamples_of, spread
from sparc_bench.metrics.statistic import Statistic
from sparc_bench.metrics.wilson import LEVEL, Z, wilson_interval

_SEED = 20240607
_KEPT_CELLS = 4_000_000
_CELLS_AT_ONCE = 100_000
"""Weights of images that stay in a core's cache; numpy shares larger products out among threads, which wait for each
other longer than they count."""


@dataclass(frozen=True)
class SeedsEstimate(Estimate):
    """A value with its uncertainty over training seeds and images.

    `se` is without the widening for few seeds; `method` is as for images alone.

    Attributes:
        seeds: number of trainings of the recipe, or of both recipes of a difference.
    """

    seeds: tuple[int, ...]

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
    """Estimate of the mean over the seeds of `a` minus that of `b`, with separate draws of seeds and shared images."""
    return _estimate([a, b])


def seed_weights(trainings: int, resamples: int, side: int = 0) -> Float[ndarray, "S T"]:
    """Weight of each of T seeds in a resample, (share - 1 / T) sqrt(T / (T - 1)); zero for a single seed."""
    if trainings == 1:
        return np.zeros((resamples, 1))
    drawn_ST = np.random.default_rng([_SEED, trainings, side]).integers(0, trainings, size=(resamples, trainings))
    counts_ST = (drawn_ST[:, :, None] == np.arange(trainings)).sum(axis=1)
    return np.asarray((counts_ST / trainings - 1 / trainings) * np.sqrt(trainings / (trainings - 1)))


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
        return SeedsEstimate(nothing, nothing, nothing, nothing, 0, "bootstrap", counts)
    everything = [statistic for side in sides for statistic in side]
    least, most = min(each.least for each in everything), max(each.most for each in everything)
    reach = most - least
    bounds = (least, most) if len(sides) == 1 else (-reach, reach)
    signs = [1, *[-1] * (len(sides) - 1)]
    value = float(sum(sign * of.mean() for sign, of in zip(signs, values, strict=True)))
    occupied = min(each.occupied for each in everything)
    images_S, seeds_S = _resampled(sides, signs, min(map(resamples_of, everything)))
    between = [float(of.var(ddof=1)) / len(of) if len(of) > 1 else 0.0 for of in values]
    freedom = degrees_of_freedom(
        [float(np.nanvar(images_S, ddof=1)), *between], [float("inf"), *(max(1, count - 1) for count in counts)]
    )
    widen = float(stdtrit(freedom, (1 + LEVEL) / 2)) / Z if np.isfinite(freedom) else 1.0
    ends = spread(images_S + seeds_S, value, bounds, widen)
    if ends is not None:
        return SeedsEstimate(value, *ends, occupied, "bootstrap", counts)
    n = min(each.effective_n for each in everything)
    if len(sides) == 1:
        low, high = (least + reach * end for end in wilson_interval((value - least) / reach, n))
    else:
        half = reach * wilson_interval(0.0, n)[1]
        low, high = max(bounds[0], value - half), min(bounds[1], value + half)
    return SeedsEstimate(value, (high - low) / (2 * Z), low, high, occupied, "wilson", counts)


def _resampled(
    sides: Sequence[Sequence[Statistic]], signs: Sequence[int], resamples: int
) -> tuple[Float[ndarray, "S"], Float[ndarray, "S"]]:
    """Per resample the mean over all seeds on the drawn images, and its change by the drawn seeds."""
    weights = [seed_weights(len(side), resamples, number) for number, side in enumerate(sides)]
    images, seeds = [], []
    start = 0
    for weights_SG in _image_weights(sides[0][0].clusters, resamples):
        rows = slice(start, start := start + len(weights_SG))
        images_S, seeds_S = np.zeros(len(weights_SG)), np.zeros(len(weights_SG))
        for sign, side, weights_ST in zip(signs, sides, weights, strict=True):
            values_ST = np.stack([statistic.values_S(weights_SG) for statistic in side], axis=1)
            images_S += sign * values_ST.mean(axis=1)
            seeds_S += sign * (weights_ST[rows] * values_ST).sum(axis=1)
        images.append(images_S)
        seeds.append(seeds_S)
    return np.concatenate(images), np.concatenate(seeds)


def _image_weights(clusters: int, resamples: int) -> Iterable[Float[ndarray, "S G"]]:
    """Image weights of the resamples, cached: the rows of a table share them, and drawing them is the slow part."""
    small = clusters * resamples <= _KEPT_CELLS
    return _kept_weights(clusters, resamples) if small else cluster_weights(clusters, resamples)


@lru_cache(maxsize=2)
def _kept_weights(clusters: int, resamples: int) -> tuple[Float[ndarray, "S G"], ...]:
    rows = max(1, _CELLS_AT_ONCE // max(clusters, 1))
    return tuple(
        weights_SG[start : start + rows]
        for weights_SG in cluster_weights(clusters, resamples)
        for start in range(0, len(weights_SG), rows)
    )
