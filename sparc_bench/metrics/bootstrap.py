"""Uncertainty of any statistic: a bootstrap over clusters (images), alone or paired.

Every resample draws G of the G clusters with replacement. The 95 % interval lies between the percentiles of the
resamples, moved by the difference between the value and the resamples' mean: means do not notice, but AP and mIoU are
biased under repeated images, so that a plain percentile interval can miss the value itself. The draws depend on the
number of clusters alone: all metrics of a task, and both sides of a paired difference, see the same ones.

Shapes: S resamples, G clusters, P kinds of clusters, C classes, E cells (a cluster and a class that it holds items of).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from sparc_bench.metrics.cluster_kinds import cluster_kinds
from sparc_bench.metrics.statistic import RESAMPLES, Statistic
from sparc_bench.metrics.wilson import LEVEL, Z, wilson_interval

Name = TypeVar("Name", bound=Hashable)

_CHUNK_CELLS = 2_000_000
_DRAWS_AT_ONCE = 200_000
"""Number of draws that stay in a core's cache until they are counted."""
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


def cluster_weights(
    clusters: int, resamples: int, place_G: Int[ndarray, "G"] | None = None
) -> Iterator[Float[ndarray, "S G"]]:
    """Multinomial weights (how often each cluster was drawn) in chunks of bounded memory; each row sums to G.

    With `place_G` how often clusters of each kind were drawn, in the same draws (S P).
    """
    rng = np.random.default_rng([_SEED, clusters])
    columns = clusters if place_G is None else int(place_G.max()) + 1
    rows, rows_drawn = max(1, _CHUNK_CELLS // max(columns, 1)), max(1, _DRAWS_AT_ONCE // max(clusters, 1))
    for start in range(0, resamples, rows):
        weights_SG = np.empty((min(rows, resamples - start), columns))
        for first in range(0, len(weights_SG), rows_drawn):
            part_RG = weights_SG[first : first + rows_drawn]
            drawn_RG = rng.integers(0, clusters, size=(len(part_RG), clusters))
            if place_G is not None:
                drawn_RG = place_G.take(drawn_RG)
            drawn_RG += np.arange(len(part_RG))[:, None] * columns
            part_RG[:] = np.bincount(drawn_RG.ravel(), minlength=part_RG.size).reshape(part_RG.shape)
        yield weights_SG


def bootstrap_all(statistics: Mapping[Name, Statistic], resamples: int = RESAMPLES) -> dict[Name, Estimate]:
    """The estimate of every statistic; those with equal numbers of clusters share their draws.

    Where no resample differs from another (all right, all wrong, one cluster) a percentile interval would claim
    certainty: Wilson's interval stands in its place, with the number of clusters as n; for a mean over classes n is
    the number of classes times the clusters of the rarest one, if that is less.

    Args:
        statistics: by any names.
        resamples: of each that asks for no number of its own.
    """
    asked = {name: resamples_of(statistic, resamples) for name, statistic in statistics.items()}
    drawn = _resampled({name: (statistic,) for name, statistic in statistics.items()}, asked)
    return {name: _estimate(statistic, *drawn.pop(name)) for name, statistic in statistics.items()}


def bootstrap(statistic: Statistic) -> Estimate:
    """The estimate of one statistic (see `bootstrap_all`)."""
    return bootstrap_all({"": statistic})[""]


def resamples_of(statistic: Statistic, resamples: int = RESAMPLES) -> int:
    """Number of resamples that the statistic asks for."""
    return int(getattr(statistic, "resamples", resamples))


def _resampled(
    statistics: Mapping[Name, tuple[Statistic, ...]], resamples: Mapping[Name, int]
) -> dict[Name, list[Float[ndarray, "S"]]]:
    """The resamples of each of some statistics under one name, which are of the same clusters."""
    plans: dict[tuple[int, int], list[Name]] = {}
    for name, several in statistics.items():
        plans.setdefault((several[0].clusters, resamples[name]), []).append(name)
    values: dict[Name, list[ndarray]] = {}
    for (clusters, number), names in plans.items():
        merged = cluster_kinds((each for name in names for each in statistics[name]), clusters)
        ready = {name: [each if merged is None else merged.of(each) for each in statistics[name]] for name in names}
        chunks: dict[Name, list[list[ndarray]]] = {name: [[] for _ in each] for name, each in ready.items()}
        if clusters > 0:
            for weights_SG in cluster_weights(clusters, number, place_G=None if merged is None else merged.place_G):
                for name in names:
                    for each, parts in zip(ready[name], chunks[name], strict=True):
                        parts.append(each.values_S(weights_SG))
        values |= {name: [np.concatenate(parts or [np.zeros(0)]) for parts in chunks.pop(name)] for name in names}
    return values


def _estimate(statistic: Statistic, values_S: Float[ndarray, "S"]) -> Estimate:
    occupied = statistic.occupied
    value = statistic.value if statistic.clusters else float("nan")
    if np.isnan(value):
        return Estimate(value, float("nan"), float("nan"), float("nan"), occupied, "bootstrap")
    ends = spread(values_S, value, (statistic.least, statistic.most))
    if ends is None:
        low, high = statistic.interval_without_spread(value)
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


def paired_differences(pairs: Mapping[Name, tuple[Statistic, Statistic]]) -> dict[Name, Estimate]:
    """The first minus the second of each pair under common draws: two models on the same images, row for row.

    Where no resample differs (no image on which the models differ, or all by the same amount) the interval is the
    difference plus and minus Wilson's upper end for 0 of the number of images.
    """
    for a, b in pairs.values():
        if a.clusters != b.clusters:
            raise RuntimeError(f"paired statistics of {a.clusters} and {b.clusters} clusters")
    drawn = _resampled(pairs, {name: min(map(resamples_of, pair)) for name, pair in pairs.items()})
    return {name: _difference(*pair, *drawn.pop(name)) for name, pair in pairs.items()}


def _difference(a: Statistic, b: Statistic, a_S: Float[ndarray, "S"], b_S: Float[ndarray, "S"]) -> Estimate:
    occupied = min(a.occupied, b.occupied)
    difference = a.value - b.value if a.clusters else float("nan")
    if np.isnan(difference):
        return Estimate(difference, float("nan"), float("nan"), float("nan"), occupied, "bootstrap")
    reach = max(a.most, b.most) - min(a.least, b.least)
    ends = spread(a_S - b_S, difference, (-reach, reach))
    if ends is None:
        half = reach * wilson_interval(0.0, min(a.effective_n, b.effective_n))[1]
        low, high = max(-reach, difference - half), min(reach, difference + half)
        return Estimate(difference, half / Z, low, high, occupied, "wilson")
    return Estimate(difference, *ends, occupied, "bootstrap")
