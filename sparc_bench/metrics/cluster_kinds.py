"""Kinds of clusters: equal clusters merged into one, which speeds up the bootstrap without a change of its draws.

50,000 images that are each right or wrong are a few thousand kinds. A weighted sum over clusters depends only on how
often each kind was drawn, so the draws of clusters are counted by kind and fewer values are multiplied.

Shapes: G clusters, P kinds of clusters, E cells of a statistic, O clusters with a cell.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Shaped
from numpy import ndarray

from sparc_bench.metrics.statistic import Statistic


@dataclass(frozen=True)
class ClusterKinds:
    """Kinds of equal clusters.

    Attributes:
        place_G: kind of each cluster.
        first_P: first cluster of each kind.
    """

    place_G: Int[ndarray, "G"]
    first_P: Int[ndarray, "P"]

    def of(self, statistic: Statistic) -> Statistic:
        """Statistic with the kinds as its clusters."""
        return statistic.of_clusters(self.place_G, self.first_P)


def cluster_kinds(statistics: Iterable[Statistic], clusters: int) -> ClusterKinds | None:
    """Kinds of clusters that are equal in all statistics; None if more than half of the clusters would remain.

    >>> from sparc_bench.metrics.statistic import Mean
    >>> cluster_kinds([Mean.of(np.array([1.0, 0.0, 1.0, 1.0]))], 4)
    ClusterKinds(place_G=array([1, 0, 1, 1]), first_P=array([1, 0]))
    """
    place_G = np.zeros(clusters, dtype=np.int64)
    for statistic in statistics:
        cells = statistic.cells()
        if cells is None:
            return None
        for cluster_E, values in _one_of_each_cluster(*cells):
            # a cluster with a cell is of another kind than one without
            place_E, _ = _numbered([place_G[cluster_E], *values])
            place_G[cluster_E] = place_G.max() + 1 + place_E
    place_G, first_P = _numbered([place_G])
    return ClusterKinds(place_G, first_P) if 2 * len(first_P) <= clusters else None


def _one_of_each_cluster(
    cluster_E: ndarray, values: tuple[ndarray, ...]
) -> Iterable[tuple[Int[ndarray, "O"], list[ndarray]]]:
    """Parts of the cells with at most one cell of a cluster: the first cell of every cluster, the second, and so on."""
    order_E = np.argsort(cluster_E, kind="stable")
    sorted_E = cluster_E[order_E]
    opens_E = np.diff(sorted_E, prepend=-1) != 0
    turn_E = np.arange(len(sorted_E)) - np.flatnonzero(opens_E)[np.cumsum(opens_E) - 1]
    for turn in range(int(turn_E.max(initial=-1)) + 1):
        chosen = order_E[turn_E == turn]
        yield cluster_E[chosen], [column[chosen] for column in values]


def _numbered(columns: list[Shaped[ndarray, "E"]]) -> tuple[Int[ndarray, "E"], Int[ndarray, "P"]]:
    """Number (from 0) of each row among the distinct rows of the columns, and the first index of each distinct row."""
    place_E = np.zeros(len(columns[0]), dtype=np.int64)
    first_P = place_E[:1]
    for column in columns:
        _, number_E = np.unique(column, return_inverse=True)
        joint_E = place_E * (int(number_E.max(initial=0)) + 1) + number_E
        _, first_P, place_E = np.unique(joint_E, return_index=True, return_inverse=True)
    return place_E, first_P
