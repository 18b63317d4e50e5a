"""Uncertainty of any statistic: a bootstrap over clusters (images), alone or paired.

Every resample draws G of the G clusters with replacement. The 95 % interval lies between the percentiles of the
resamples, moved by the difference between the value and the resamples' mean: means do not notice, but AP and mIoU are
biased under repeated images, so that a plain percentile interval can miss the value itself. The draws depend on the
number of clusters alone: all metrics of a task, and both sides of a paired difference, see the same ones.

Shapes: S resamples, G clusters, C classes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from sparc_bench.metrics.statistic import RESAMPLES, ClassMean, IoU, Mean, Statistic

Name = TypeVar("Name", bound=Hashable)

LEVEL = 0.95
Z = 1.959963984540054
"""The normal quantile of a two-sided 95 % interval."""

_CHUNK_CELLS = 2_000_000
_SEED = 20240118


@dataclass(frozen=True)
class Estimate:
    """A value with its uncertainty over images.

    Attributes:
        value: the metric itself, NaN where there is nothing to average.
        se: standard error (spread of the resamples; Wilson: half the interval over 1.96).
        low: lower end of the 95 % interval.
        high: upper end.
        clusters: how many clusters hold anything that was scored.
        method: "bootstrap", or "wilson" where no resample differs from another.
    """

    value: float
    se: float
    low: float
    high: float
    clusters: int
    method: str


def wilson_interval(share: float, n: float) -> tuple[float, float]:
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


def cluster_weights(clusters: int, resamples: int, seed: int = _SEED) -> Iterator[Float[ndarray, "S G"]]:
    """Multinomial weights (how often each cluster was drawn) in chunks of bounded memory; each row sums to G."""
    rng = np.random.default_rng([seed, clusters])
    rows = max(1, _CHUNK_CELLS // max(clusters, 1))
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        drawn_SG = rng.integers(0, clusters, size=(count, clusters))
        drawn_SG += np.arange(count)[:, None] * clusters
        counts = np.bincount(drawn_SG.ravel(), minlength=count * clusters)
        yield counts.reshape(count, clusters).astype(np.float64)


def occupied_clusters(statistic: Statistic) -> int:
    """How many clusters hold anything that the statistic averages."""
    cells_GC = _occupancy(statistic)
    return statistic.clusters if cells_GC is None else int(cells_GC.any(axis=1).sum())


def _occupancy(statistic: Statistic) -> ndarray | None:
    if isinstance(statistic, Mean):
        return np.asarray(statistic.count_G)[:, None] > 0
    if isinstance(statistic, ClassMean):
        return np.asarray(statistic.count_GC) > 0
    if isinstance(statistic, IoU):
        return np.asarray(statistic.union_GC) > 0
    return None


def effective_n(statistic: Statistic) -> float:
    """The n of a Wilson interval: clusters; for means over classes the classes times the rarest class's clusters."""
    cells_GC = _occupancy(statistic)
    cells_GC = statistic.objects_GC if cells_GC is None else cells_GC
    if cells_GC is None:
        return statistic.clusters
    per_class_C = cells_GC.sum(axis=0)
    per_class_C = per_class_C[per_class_C > 0]
    return float(min(len(per_class_C) * per_class_C.min(), cells_GC.any(axis=1).sum())) if len(per_class_C) else 0.0


def bootstrap_all(statistics: Mapping[Name, Statistic]) -> dict[Name, Estimate]:
    """The estimate of every statistic; those with equal numbers of clusters share their draws.

    Where no resample differs from another (all right, all wrong, one cluster) a percentile interval would claim
    certainty: Wilson's interval stands in its place, with the number of clusters as n; for a mean over classes n is
    the number of classes times the clusters of the rarest one, if that is less.
    """
    plans: dict[tuple[int, int], list[Name]] = {}
    for name, statistic in statistics.items():
        plans.setdefault((statistic.clusters, resamples_of(statistic)), []).append(name)
    drawn: dict[Name, list[ndarray]] = {name: [] for name in statistics}
    for (clusters, resamples), names in plans.items():
        if clusters == 0:
            continue
        for weights_SG in cluster_weights(clusters, resamples):
            for name in names:
                drawn[name].append(statistics[name].values_S(weights_SG))
    return {name: _estimate(statistic, drawn[name]) for name, statistic in statistics.items()}


def bootstrap(statistic: Statistic) -> Estimate:
    """The estimate of one statistic (see `bootstrap_all`)."""
    return bootstrap_all({"": statistic})[""]


def resamples_of(statistic: Statistic) -> int:
    """How many resamples the statistic asks for."""
    return int(getattr(statistic, "resamples", RESAMPLES))


def _estimate(statistic: Statistic, chunks: list[ndarray]) -> Estimate:
    occupied = occupied_clusters(statistic)
    value = statistic.value if statistic.clusters else float("nan")
    if np.isnan(value):
        return Estimate(value, float("nan"), float("nan"), float("nan"), occupied, "bootstrap")
    ends = spread(np.concatenate(chunks), value, (0.0, 1.0))
    if ends is None:
        low, high = wilson_interval(value, effective_n(statistic))
        return Estimate(value, (high - low) / (2 * Z), low, high, occupied, "wilson")
    return Estimate(value, *ends, occupied, "bootstrap")


def spread(
    values_S: Float[ndarray, "S"], value: float, bounds: tuple[float, float], widen: float = 1.0
) -> tuple[float, float, float] | None:
    """Standard error and 95 % interval about a value; None where the resamples do not differ.

    Args:
        values_S: the resamples; those without anything to average (NaN) are left out.
        value: about which the interval lies.
        bounds: of what is possible.
        widen: factor on the percentiles' distances from the resamples' mean.
    """
    values_S = values_S[~np.isnan(values_S)]
    # rounding alone moves a weighted mean of equal credits by a few units in the last place
    if len(values_S) < 2 or np.ptp(values_S) < 1e-9:
        return None
    ends = value + widen * (np.quantile(values_S, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - values_S.mean())
    low, high = np.clip(ends, *bounds)
    return float(values_S.std(ddof=1)), float(low), float(high)


def paired_difference(a: Statistic, b: Statistic) -> Estimate:
    """`a` minus `b` under common draws: two models on the same images, row for row.

    Where no resample differs (no image on which the models differ, or all by the same amount) the interval is the
    difference plus and minus Wilson's upper end for 0 of the number of images.
    """
    if a.clusters != b.clusters:
        raise RuntimeError(f"paired statistics of {a.clusters} and {b.clusters} clusters")
    occupied = min(occupied_clusters(a), occupied_clusters(b))
    difference = a.value - b.value if a.clusters else float("nan")
    if np.isnan(difference):
        return Estimate(difference, float("nan"), float("nan"), float("nan"), occupied, "bootstrap")
    resamples = min(resamples_of(a), resamples_of(b))
    chunks = [a.values_S(weights_SG) - b.values_S(weights_SG) for weights_SG in cluster_weights(a.clusters, resamples)]
    ends = spread(np.concatenate(chunks), difference, (-1.0, 1.0))
    if ends is None:
        half = wilson_interval(0.0, min(effective_n(a), effective_n(b)))[1]
        low, high = max(-1.0, difference - half), min(1.0, difference + half)
        return Estimate(difference, half / Z, low, high, occupied, "wilson")
    return Estimate(difference, *ends, occupied, "bootstrap")
