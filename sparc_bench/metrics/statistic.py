"""Statistics that can be re-weighted by cluster, so that one bootstrap serves every metric.

A cluster is an image: its captions, regions and pixels are drawn together. A statistic keeps per-cluster sufficient
statistics and computes its value for any cluster weights; weights of one give the plain metric, multinomial weights
give the bootstrap, and the same weights for two models give the paired difference.

Shapes: G clusters, C classes, S resamples.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
from jaxtyping import Float
from numpy import ndarray

RESAMPLES = 2000


@dataclass(frozen=True)
class Statistic:
    """A metric with what it takes to resample it; subclasses hold arrays whose first axis is the cluster."""

    kind: ClassVar[str]

    def values_S(self, weights_SG: Float[ndarray, "S G"]) -> Float[ndarray, "S"]:
        """The metric under each row of cluster weights; NaN where nothing is left to average."""
        raise NotImplementedError

    @property
    def clusters(self) -> int:
        """How many clusters there are."""
        return len(getattr(self, fields(self)[0].name))

    @property
    def objects_GC(self) -> ndarray | None:
        """Which cluster has anything to find of which class, where that is all that can be said; else None."""
        return None

    @property
    def value(self) -> float:
        """The metric itself (every cluster once)."""
        return float(self.values_S(np.ones((1, self.clusters)))[0])

    def arrays(self) -> dict[str, ndarray]:
        """The arrays by name, for the file of outcomes."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}


def _ratio(numerator: ndarray, denominator: ndarray) -> ndarray:
    quotient = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


@dataclass(frozen=True)
class Mean(Statistic):
    """Sum of credits over number of items; a cluster may hold several items, or none."""

    kind: ClassVar[str] = "mean"
    sum_G: Float[ndarray, "G"]
    count_G: Float[ndarray, "G"]

    @classmethod
    def of(cls, values_I: ndarray, cluster_I: ndarray | None = None, clusters: int | None = None) -> Mean:
        """From one value per item and the item's cluster (default: every item is a cluster of its own).

        >>> Mean.of(np.array([1.0, 0.0, 1.0]), np.array([0, 0, 1])).value
        0.6666666666666666
        """
        values_I = np.asarray(values_I, dtype=np.float64)
        if cluster_I is None:
            return cls(values_I, np.ones_like(values_I))
        size = clusters if clusters is not None else int(cluster_I.max(initial=-1)) + 1
        return cls(
            np.bincount(cluster_I, values_I, minlength=size), np.bincount(cluster_I, minlength=size).astype(np.float64)
        )

    def values_S(self, weights_SG: Float[ndarray, "S G"]) -> Float[ndarray, "S"]:
        """Weighted sum of credits over weighted number of items."""
        occupied = np.flatnonzero(self.count_G)
        if 2 * len(occupied) > len(self.count_G):
            return _ratio(weights_SG @ self.sum_G, weights_SG @ self.count_G)
        # one class of many lies in few clusters: the others add zeros alone
        weights_SO = weights_SG[:, occupied]
        return _ratio(weights_SO @ self.sum_G[occupied], weights_SO @ self.count_G[occupied])


@dataclass(frozen=True)
class ClassMean(Statistic):
    """Mean over classes of the mean within the class; classes without items are left out of the mean."""

    kind: ClassVar[str] = "class_mean"
    sum_GC: Float[ndarray, "G C"]
    count_GC: Float[ndarray, "G C"]

    @classmethod
    def of(cls, values_I: ndarray, class_I: ndarray, cluster_I: ndarray, clusters: int, classes: int) -> ClassMean:
        """From one value, class and cluster per item."""
        sum_GC, count_GC = np.zeros((clusters, classes)), np.zeros((clusters, classes))
        np.add.at(sum_GC, (cluster_I, class_I), values_I)
        np.add.at(count_GC, (cluster_I, class_I), 1.0)
        return cls(sum_GC, count_GC)

    def values_S(self, weights_SG: Float[ndarray, "S G"]) -> Float[ndarray, "S"]:
        """Macro mean under the weights."""
        return _mean_of_present(_ratio(weights_SG @ self.sum_GC, weights_SG @ self.count_GC))


@dataclass(frozen=True)
class IoU(Statistic):
    """Mean over classes of data-set-level intersection over union; classes whose union is empty are left out."""

    kind: ClassVar[str] = "iou"
    intersection_GC: Float[ndarray, "G C"]
    union_GC: Float[ndarray, "G C"]

    def values_S(self, weights_SG: Float[ndarray, "S G"]) -> Float[ndarray, "S"]:
        """MIoU under the weights."""
        return _mean_of_present(_ratio(weights_SG @ self.intersection_GC, weights_SG @ self.union_GC))


def _mean_of_present(values_SC: ndarray) -> ndarray:
    present_SC = ~np.isnan(values_SC)
    return _ratio(np.where(present_SC, values_SC, 0.0).sum(axis=1), present_SC.sum(axis=1))
