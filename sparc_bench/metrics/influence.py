"""Influence of each cluster (image) on a statistic, for its standard error, its bias and paired tests.

Means know theirs in closed form. Any other statistic is computed again with a part of its clusters left out (Quenouille
1956; Tukey 1958; Efron and Stein 1981): one at a time, or one of 500 blocks where there are more. Nothing is drawn at
random but which clusters share a block, which depends on their number alone.

Shapes: G clusters, N those that an influence is of (clusters or blocks), O clusters with items, C classes, E cells (a
cluster and a class that it holds items of), S sets of weights, B blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

BLOCKS = 500
_SEED = 20240118
_CELLS_AT_ONCE = 2_000_000
_ROUNDING = 1e-9
"""Relative size under which a part of a difference is rounding."""
_OF_OTHER_CLASSES = 2
"""Images that the variance within the other classes counts for beside a class's own."""
_FEW_REPEATS = 10
"""Second images of classes under which the variance between classes helps out."""


@dataclass(frozen=True)
class Influence:
    """Influence of clusters on one statistic, or on a weighted sum of several of the same clusters.

    Attributes:
        value: of the statistic.
        cluster_N: numbers of the clusters, or of the blocks; the others have no influence.
        shift_N: part of the value's deviation from its expectation that each causes; sums to 0.
        share_N: part of the statistic's weight that lies in each; sums to 1.
        even_N: part of the value in each if all images of a class were alike; None: the value times `share_N`.
        factor: by which the sum of squared shifts falls short of the variance.
        hidden: variance beside that, which no cluster shows (classes of a single image).
        bias: estimated excess of the value over its expectation on unlimited images; 0 for means.
        freedom: degrees of freedom of the variance.
        of_images: a cluster without a part is one on which nothing differs.
        method: "wilson" for means, whose interval is Wilson's alone; else "jackknife".
    """

    value: float
    cluster_N: Int[ndarray, "N"]
    shift_N: Float[ndarray, "N"]
    share_N: Float[ndarray, "N"]
    factor: float
    freedom: float | int
    hidden: float | int = 0.0
    bias: float | int = 0.0
    even_N: Float[ndarray, "N"] | None = None
    of_images: bool = True
    method: str = "wilson"

    @property
    def variance(self) -> float:
        """Variance of the value over sets of other images."""
        return self.factor * float(self.shift_N @ self.shift_N) + self.hidden

    @property
    def parts_N(self) -> Float[ndarray, "N"]:
        """Part of the value that comes from each cluster; sums to the value. Rounding errors of 0 are 0."""
        parts_N = self.shift_N + (self.value * self.share_N if self.even_N is None else self.even_N)
        size = np.abs(parts_N).max(initial=0.0)
        small_N = np.abs(parts_N) <= max(_ROUNDING * size, _ROUNDING / max(1, len(parts_N)))
        return np.asarray(np.where(small_N, 0.0, parts_N))


def weighted_sum(parts: Sequence[Influence], weights: Sequence[float]) -> Influence:
    """Influence on the sum of statistics times weights; the clusters of all are numbered alike."""
    first = parts[0]
    if all(np.array_equal(part.cluster_N, first.cluster_N) for part in parts):
        cluster_N = first.cluster_N
        shifts, shares = [part.shift_N for part in parts], [part.share_N for part in parts]
    else:
        cluster_N = np.unique(np.concatenate([part.cluster_N for part in parts]))
        shifts, shares = [], []
        for part in parts:
            shift_N, share_N = np.zeros((2, len(cluster_N)))
            place_N = np.searchsorted(cluster_N, part.cluster_N)
            shift_N[place_N], share_N[place_N] = part.shift_N, part.share_N
            shifts.append(shift_N)
            shares.append(share_N)
    return Influence(
        value=float(sum(weight * part.value for weight, part in zip(weights, parts, strict=True))),
        cluster_N=cluster_N,
        shift_N=np.asarray(sum(weight * shift_N for weight, shift_N in zip(weights, shifts, strict=True))),
        share_N=np.asarray(np.mean(shares, axis=0)),
        factor=max(part.factor for part in parts),
        freedom=min(part.freedom for part in parts),
        hidden=sum(weight**2 * part.hidden for weight, part in zip(weights, parts, strict=True)),
        bias=sum(weight * part.bias for weight, part in zip(weights, parts, strict=True)),
        of_images=first.of_images and all(np.array_equal(share_N, shares[0]) for share_N in shares),
        method=first.method,
    )


def left_out(
    values_S: Callable[[Float[ndarray, "S G"]], Float[ndarray, "S"]], clusters: int, freedom: float | int
) -> Influence:
    """Influence on a statistic by leaving clusters out.

    Args:
        values_S: the statistic under rows of cluster weights (here 1 and 0).
        clusters: how many there are, at least 1.
        freedom: degrees of freedom of its variance.
    """
    value = float(values_S(np.ones((1, clusters)))[0])
    blocks = min(clusters, BLOCKS)
    block_G = np.arange(clusters) % blocks
    if clusters > blocks:
        np.random.default_rng([_SEED, clusters]).shuffle(block_G)
    step = max(1, _CELLS_AT_ONCE // clusters)
    found = [
        values_S((block_G != np.arange(start, min(start + step, blocks))[:, None]).astype(np.float64))
        for start in range(0, blocks, step)
    ]
    without_B = np.concatenate(found)
    without_B = np.where(np.isnan(without_B), value, without_B)
    mean = float(without_B.mean())
    return Influence(
        value=value,
        cluster_N=np.arange(blocks),
        shift_N=(blocks - 1) / blocks * (mean - without_B),
        share_N=np.bincount(block_G, minlength=blocks) / clusters,
        factor=blocks / max(1, blocks - 1),
        freedom=min(freedom, max(1, blocks - 1)),
        bias=(blocks - 1) * (mean - value),
        of_images=False,
        method="jackknife",
    )


def mean_influence(
    cluster_O: Int[ndarray, "O"], sum_O: Shaped[ndarray, "O"], count_O: Shaped[ndarray, "O"]
) -> Influence:
    """Influence on a mean over items of the clusters that hold any, from their sums of credits and numbers of items."""
    items, clusters = float(count_O.sum()), len(cluster_O)
    value = float(sum_O.sum() / items) if items else float("nan")
    # where each cluster is all right or all wrong, and none counts more, this is a plain share, whose variance is known
    share = bool(clusters and np.ptp(count_O) == 0 and np.isin(sum_O, (0, count_O[0])).all())
    return Influence(
        value=value,
        cluster_N=cluster_O,
        shift_N=(sum_O - value * count_O) / items,
        share_N=count_O / items,
        factor=1.0 if share else clusters / max(1, clusters - 1),
        freedom=float("inf") if share else max(1, clusters - 1),
    )


def class_mean_influence(
    cluster_E: Int[ndarray, "E"],
    class_E: Int[ndarray, "E"],
    sum_E: Float[ndarray, "E"],
    count_E: Shaped[ndarray, "E"],
) -> Influence:
    """Influence on a mean over classes, class by class: images are drawn within their class, and no class is lost.

    A class's own variance is joined with that within the other classes, which counts for two images: a class of a
    single image shows none. Where hardly a class has two images, the variance between classes stands in for it.

    Args:
        cluster_E: cluster of each cell, ordered by class.
        class_E: its class.
        sum_E: sum of the credits of its items.
        count_E: number of its items.
    """
    starts_C = np.flatnonzero(np.diff(class_E, prepend=-1))
    clusters_C = np.diff(np.r_[starts_C, len(class_E)]).astype(np.float64)
    class_place_E = np.repeat(np.arange(len(starts_C)), clusters_C.astype(np.int64))
    count_C = np.add.reduceat(count_E, starts_C)
    mean_C = np.add.reduceat(sum_E, starts_C) / count_C
    weight_E = count_E / count_C[class_place_E] / len(starts_C)
    part_E = (sum_E - mean_C[class_place_E] * count_E) / count_C[class_place_E]
    square_C = np.add.reduceat(part_E**2, starts_C)
    repeats_C = clusters_C - 1
    repeats, classes = float(repeats_C.sum()), len(starts_C)
    own_C = square_C * clusters_C**2  # times 1 / (clusters - 1): variance of a cluster
    others = float(own_C.sum()) / repeats if repeats else 0.0
    if repeats < _FEW_REPEATS and classes > 1:
        others += (1 - repeats / _FEW_REPEATS) * (float(mean_C.var(ddof=1)) - others)
    joined_C = (own_C + _OF_OTHER_CLASSES * others) / (repeats_C + _OF_OTHER_CLASSES)
    shown = float(square_C.sum())
    cluster_N, place_E = np.unique(cluster_E, return_inverse=True)
    return Influence(
        value=float(mean_C.mean()),
        cluster_N=cluster_N,
        shift_N=np.bincount(place_E, part_E, len(cluster_N)) / classes,
        share_N=np.bincount(place_E, weight_E, len(cluster_N)),
        even_N=np.bincount(place_E, mean_C[class_place_E] * weight_E, len(cluster_N)),
        factor=1.0,
        freedom=max(1.0, repeats + (classes - 1 if repeats < _FEW_REPEATS else 0)),
        hidden=max(0.0, float((joined_C / clusters_C).sum()) - shown) / classes**2,
    )
