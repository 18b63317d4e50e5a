"""Statistics that can be re-weighted by cluster, so that one way to an interval serves every metric.

A cluster is an image: its captions, regions and pixels belong together. A statistic keeps per-cluster sufficient
statistics and computes its value for any cluster weights; weights of one give the plain metric, and weights of zero for
some clusters show what it rests on (`sparc_bench.metrics.influence`).

Shapes: G clusters, C classes, S sets of weights, E cells (a cluster and a class with at least one item), O clusters
that hold items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy import ndarray

from sparc_bench.metrics.influence import Influence, class_mean_influence, left_out, mean_influence
from sparc_bench.metrics.unit import Unit
from sparc_bench.metrics.wilson import wilson_interval

_CELLS_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class Statistic:
    """Metric with all that its interval needs; subclasses hold arrays whose first axis is the cluster.

    Attributes:
        kind: name of the statistic in records and in the file of outcomes.
        stored: the file of outcomes knows the class; else it is kept as another class of the same kind (`arrays`).
        least: smallest possible value.
        unit: how values are printed.
        less_is_better: the statistic is an error; no headline is one, for tables rank by more.
    """

    kind: ClassVar[str]
    stored: ClassVar[bool] = True
    least: ClassVar[float] = 0.0
    unit: ClassVar[Unit] = "percent"
    less_is_better: ClassVar[bool] = False

    def values_S(self, weights_SG: Float[ndarray, "S G"]) -> Float[ndarray, "S"]:
        """The metric under each row of cluster weights; NaN where nothing is left to average."""
        raise NotImplementedError

    @property
    def most(self) -> float:
        """Largest possible value."""
        return 1.0

    @property
    def clusters(self) -> int:
        """Number of clusters."""
        return len(getattr(self, fields(self)[0].name))

    def holdings(self) -> tuple[Int[ndarray, "E"], Int[ndarray, "E"]] | None:
        """Cluster and class of each cell with items that are averaged; None where every cluster counts."""
        return None

    @property
    def objects_GC(self) -> ndarray | None:
        """Mask of the clusters with objects of a class, for statistics without `holdings`; None where there is none."""
        return None

    @property
    def occupied(self) -> int:
        """Number of clusters with items that are averaged."""
        cells = self.holdings()
        return self.clusters if cells is None else len(np.unique(cells[0]))

    @property
    def clusters_per_class(self) -> Int[ndarray, "C"] | None:
        """Number of clusters of each class that has any; None where every cluster counts and there are no classes."""
        cells = self.holdings()
        if cells is None and self.objects_GC is not None:
            cells = _cells_of(self.objects_GC)
        if cells is None:
            return None
        per_class_C = np.bincount(cells[1])
        return np.asarray(per_class_C[per_class_C > 0])

    @property
    def effective_n(self) -> float | int:
        """N of a Wilson interval: clusters; for means over classes the classes times the rarest class's clusters."""
        per_class_C = self.clusters_per_class
        if per_class_C is None:
            return self.clusters
        holding = self.occupied if self.objects_GC is None else int((self.objects_GC > 0).any(axis=1).sum())
        return float(min(len(per_class_C) * per_class_C.min(), holding)) if len(per_class_C) else 0.0

    @property
    def most_n(self) -> float | int:
        """Largest n of the interval: no statistic of few positives is surer than a share of as many answers."""
        return float("inf")

    @property
    def freedom(self) -> float | int:
        """Degrees of freedom of the variance: clusters less one; over classes the repeated clusters of all."""
        per_class_C = self.clusters_per_class
        if per_class_C is None:
            return max(1, self.clusters - 1)
        return max(1, min(int(per_class_C.sum()) - len(per_class_C), self.occupied - 1))

    def influence(self) -> Influence:
        """Influence of each cluster on the value; by leaving clusters out, where a class knows no closed form."""
        return left_out(self.values_S, self.clusters, self.freedom)

    def weighted_sum(self, statistics: Sequence[Statistic], weights: Sequence[float]) -> Statistic | None:  # noqa: ARG002
        """Weighted sum of several statistics, this one among them, as one of this class; None where it is none."""
        return None

    def interval_without_spread(self, value: float) -> tuple[float, float]:
        """95 % interval of a value on which all clusters agree: Wilson's of its place in the range."""
        reach = self.most - self.least
        low, high = wilson_interval((value - self.least) / reach, self.effective_n)
        return self.least + reach * low, self.least + reach * high

    @property
    def value(self) -> float:
        """The metric itself (every cluster once)."""
        return float(self.values_S(np.ones((1, self.clusters)))[0])

    def as_sparse_mean(self) -> SparseMean | None:
        """The statistic as a `SparseMean`, for tables of groups; None where it is no plain mean over items."""
        return None

    def arrays(self) -> dict[str, ndarray]:
        """The arrays by name, for the file of outcomes."""
        return {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, ndarray]) -> Statistic:
        """Statistic of its stored `arrays`."""
        return cls(**arrays)


def _cells_of(holds_GC: ndarray) -> tuple[Int[ndarray, "E"], Int[ndarray, "E"]]:
    cluster_E, class_E = np.nonzero(np.asarray(holds_GC) > 0)
    return cluster_E, class_E


def _ratio(numerator: ndarray, denominator: ndarray) -> ndarray:
    quotient = np.full(np.shape(numerator), np.nan)
    np.divide(numerator, denominator, out=quotient, where=denominator > 0)
    return quotient


def _summed(place_I: ndarray, values_I: ndarray, size: int) -> Float[ndarray, "size"]:
    # of no items at all numpy's sum is one of integers
    sum_: Float[ndarray, "size"] = np.bincount(place_I, np.asarray(values_I, dtype=np.float64), size).astype(np.float64)
    return sum_


def _counted(place_I: ndarray, size: int) -> Float[ndarray, "size"]:
    count: Float[ndarray, "size"] = np.bincount(place_I, minlength=size).astype(np.float64)
    return count


@dataclass(frozen=True)
class Mean(Statistic):
    """Sum of credits over number of items; a cluster may hold several items, or none."""

    kind: ClassVar[str] = "mean"
    sum_G: Float[ndarray, "G"]
    count_G: Float[ndarray, "G"]

    @classmethod
    def of(cls, values_I: ndarray, cluster_I: ndarray | None = None, clusters: int | None = None) -> Mean:
        """Mean of one value per item, with the item's cluster (default: every item is a cluster of its own).

        >>> Mean.of(np.array([1.0, 0.0, 1.0]), np.array([0, 0, 1])).value
        0.6666666666666666
        """
        values_I = np.asarray(values_I, dtype=np.float64)
        if cluster_I is None:
            return cls(values_I, np.ones_like(values_I))
        size = clusters if clusters is not None else int(cluster_I.max(initial=-1)) + 1
        return cls(_summed(cluster_I, values_I, size), _counted(cluster_I, size))

    def holdings(self) -> tuple[Int[ndarray, "E"], Int[ndarray, "E"]]:
        """Clusters with items; one class."""
        cluster_E = np.flatnonzero(np.asarray(self.count_G) > 0)
        return cluster_E, np.zeros_like(cluster_E)

    def values_S(self, weights_SG: Float[ndarray, "S G"]) -> Float[ndarray, "S"]:
        """Weighted sum of credits over weighted number of items."""
        occupied = np.flatnonzero(self.count_G)
        if 2 * len(occupied) > len(self.count_G):
            return _ratio(weights_SG @ self.sum_G, weights_SG @ self.count_G)
        # one class of many lies in few clusters: the others add zeros alone
        weights_SO = weights_SG[:, occupied]
        return _ratio(weights_SO @ self.sum_G[occupied], weights_SO @ self.count_G[occupied])

    def influence(self) -> Influence:
        """Influence of each cluster with items, in closed form; a subclass may compute something else."""
        if type(self) is not Mean:
            return super().influence()
        cluster_O = np.flatnonzero(self.count_G)
        return mean_influence(cluster_O, self.sum_G[cluster_O], self.count_G[cluster_O])

    def as_sparse_mean(self) -> SparseMean | None:
        """The mean over its clusters with items; None for a subclass, which may compute something else."""
        if type(self) is not Mean:
            return None
        cluster_O = np.flatnonzero(self.count_G)
        return SparseMean(cluster_O, self.sum_G[cluster_O], self.count_G[cluster_O], self.clusters)


@dataclass(frozen=True)
class MeanDifference(Mean):
    """Mean of differences of two scores of one item, each from -1 to 1; the interval is that of the pairs."""

    kind: ClassVar[str] = "mean_difference"
    least: ClassVar[float] = -1.0
    unit: ClassVar[Unit] = "number"

    def influence(self) -> Influence:
        """Influence of each cluster with items, in closed form."""
        cluster_O = np.flatnonzero(self.count_G)
        return mean_influence(cluster_O, self.sum_G[cluster_O], self.count_G[cluster_O])


@dataclass(frozen=True)
class SparseMean(Statistic):
    """A `Mean` of items in a few of many clusters, such as one class of a thousand.

    Attributes:
        cluster_O: the clusters that hold items, ascending.
        sum_O: their sums of credits.
        count_O: their numbers of items.
        size: number of clusters.
    """

    kind: ClassVar[str] = "mean"
    stored: ClassVar[bool] = False
    cluster_O: Int[ndarray, "O"]
    sum_O: Float[ndarray, "O"]
    count_O: Float[ndarray, "O"]
    size: int

    @classmethod
    def of_groups(
        cls, values_I: ndarray, group_I: ndarray, cluster_I: ndarray, clusters: int, groups: int
    ) -> list[SparseMean]:
        """The mean of each group, from one value, group and cluster per item.

        >>> [mean.value for mean in SparseMean.of_groups(np.array([1.0, 0.0]), np.array([1, 1]), np.arange(2), 2, 2)]
        [nan, 0.5]
        """
        whole = ClassMean.of(values_I, group_I, cluster_I, clusters, groups)
        ends = np.searchsorted(whole.class_E, np.arange(groups + 1))
        parts = [slice(start, end) for start, end in pairwise(ends.tolist())]
        return [cls(whole.cluster_E[part], whole.sum_E[part], whole.count_E[part], clusters) for part in parts]

    @property
    def clusters(self) -> int:
        """Number of clusters, empty ones among them."""
        return self.size

    def holdings(self) -> tuple[Int[ndarray, "E"], Int[ndarray, "E"]]:
        """Clusters with items; one class."""
        return self.cluster_O, np.zeros_like(self.cluster_O)

    def values_S(self, weights_SG: Float[ndarray, "S G"]) -> Float[ndarray, "S"]:
        """Weighted sum of credits over weighted number of items."""
        weights_SO = weights_SG[:, self.cluster_O]
        return _ratio(weights_SO @ self.sum_O, weights_SO @ self.count_O)

    def influence(self) -> Influence:
        """Influence of each cluster with items, in closed form."""
        return mean_influence(self.cluster_O, self.sum_O, self.count_O)

    def as_sparse_mean(self) -> SparseMean:
        """The mean itself."""
        return self

    def arrays(self) -> dict[str, ndarray]:
        """Arrays of the equal `Mean`, by name."""
        sum_G, count_G = np.zeros((2, self.size))
        sum_G[self.cluster_O], count_G[self.cluster_O] = self.sum_O, self.count_O
        return {"sum_G": sum_G, "count_G": count_G}


@dataclass(frozen=True)
class ClassMean(Statistic):
    """Mean over classes of the mean within the class; classes without items are left out of the mean.

    Attributes:
        cluster_E: cluster of each cell; ordered by class, then by cluster.
        class_E: its class.
        sum_E: sum of the credits of its items.
        count_E: number of its items, never 0.
        size: number of clusters.
    """

    kind: ClassVar[str] = "class_mean"
    cluster_E: Int[ndarray, "E"]
    class_E: Int[ndarray, "E"]
    sum_E: Float[ndarray, "E"]
    count_E: Float[ndarray, "E"]
    size: int

    @classmethod
    def of(cls, values_I: ndarray, class_I: ndarray, cluster_I: ndarray, clusters: int, classes: int) -> ClassMean:
        """Class mean of items, with one value, class and cluster per item."""
        if np.any((class_I < 0) | (class_I >= classes)):
            raise IndexError(f"a class outside 0..{classes - 1}")
        cell_I = np.asarray(class_I, dtype=np.int64) * clusters + cluster_I
        cell_E, index_I = np.unique(cell_I, return_inverse=True)
        sum_E, count_E = _summed(index_I, values_I, len(cell_E)), _counted(index_I, len(cell_E))
        return cls(cell_E % max(clusters, 1), cell_E // max(clusters, 1), sum_E, count_E, clusters)

    @classmethod
    def of_table(cls, sum_GC: Shaped[ndarray, "G C"], count_GC: Shaped[ndarray, "G C"]) -> ClassMean:
        """Class mean of the sums and numbers of every cluster and class."""
        class_E, cluster_E = np.nonzero(np.asarray(count_GC).T)
        sum_E, count_E = (np.asarray(of_GC)[cluster_E, class_E].astype(np.float64) for of_GC in (sum_GC, count_GC))
        return cls(cluster_E, class_E, sum_E, count_E, len(sum_GC))

    @property
    def clusters(self) -> int:
        """Number of clusters, empty ones among them."""
        return self.size

    def holdings(self) -> tuple[Int[ndarray, "E"], Int[ndarray, "E"]]:
        """Cluster and class of every cell."""
        return self.cluster_E, self.class_E

    def values_S(self, weights_SG: Float[ndarray, "S G"]) -> Float[ndarray, "S"]:
        """Macro mean under the weights."""
        if not len(self.class_E):
            return np.full(len(weights_SG), np.nan)
        starts_C = np.flatnonzero(np.diff(self.class_E, prepend=-1))
        values = []
        step = max(1, _CELLS_AT_ONCE // len(self.class_E))
        for start in range(0, len(weights_SG), step):
            weights_SE = weights_SG[start : start + step].take(self.cluster_E, axis=1)
            count_SC = np.add.reduceat(weights_SE * self.count_E, starts_C, axis=1)
            weights_SE *= self.sum_E
            values.append(_mean_of_present(_ratio(np.add.reduceat(weights_SE, starts_C, axis=1), count_SC)))
        return np.concatenate(values)

    def influence(self) -> Influence:
        """Influence of each cluster, class by class."""
        return class_mean_influence(self.cluster_E, self.class_E, self.sum_E, self.count_E)

    def weighted_sum(self, statistics: Sequence[Statistic], weights: Sequence[float]) -> ClassMean | None:
        """The class mean of the weighted credits, where all are of the same items."""
        sums = []
        for each in statistics:
            if type(each) is not ClassMean or each.size != self.size:
                return None
            if not all(
                np.array_equal(getattr(each, key), getattr(self, key)) for key in ("cluster_E", "class_E", "count_E")
            ):
                return None
            sums.append(each.sum_E)
        sum_E = np.asarray(sum(weight * sum_E for weight, sum_E in zip(weights, sums, strict=True)))
        return replace(self, sum_E=sum_E)

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, ndarray]) -> ClassMean:
        """Class mean of its stored `arrays`, or of the tables of older files."""
        if "sum_GC" in arrays:
            return cls.of_table(arrays["sum_GC"], arrays["count_GC"])
        cluster_E, class_E, sum_E, count_E = (arrays[key] for key in ("cluster_E", "class_E", "sum_E", "count_E"))
        return cls(cluster_E, class_E, sum_E, count_E, int(arrays["size"]))


@dataclass(frozen=True)
class IoU(Statistic):
    """Mean over classes of data-set-level intersection over union; classes whose union is empty are left out."""

    kind: ClassVar[str] = "iou"
    intersection_GC: Float[ndarray, "G C"]
    union_GC: Float[ndarray, "G C"]

    def holdings(self) -> tuple[Int[ndarray, "E"], Int[ndarray, "E"]]:
        """Cluster and class of every cell whose union holds pixels."""
        return _cells_of(self.union_GC)

    def values_S(self, weights_SG: Float[ndarray, "S G"]) -> Float[ndarray, "S"]:
        """Mean IoU under the weights."""
        return _mean_of_present(_ratio(weights_SG @ self.intersection_GC, weights_SG @ self.union_GC))


def _mean_of_present(values_SC: ndarray) -> ndarray:
    present_SC = ~np.isnan(values_SC)
    return _ratio(np.where(present_SC, values_SC, 0.0).sum(axis=1), present_SC.sum(axis=1))
