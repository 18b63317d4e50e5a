"""Clusters that no statistic tells apart, as one: 50,000 images that are right or wrong are a few thousand kinds.

A resample draws clusters, and any weighted sum over them depends on how often each kind was drawn alone: the draws stay
the same ones, and there is less to multiply.

Shapes: G clusters, P kinds of clusters, E cells of a statistic.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Shaped
from numpy import ndarray

from sparc_bench.metrics.statistic import Statistic


@dataclass(frozen=True)
class Kinds:
    """Which clusters are alike: `place_G` is the kind of each, `first_P` the first cluster of each kind."""

    place_G: Int[ndarray, "G"]
    first_P: Int[ndarray, "P"]

    def of(self, statistic: Statistic) -> Statistic:
        """The statistic over kinds in the place of clusters."""
        return statistic.of_clusters(self.place_G, self.first_P)


def kinds(statistics: Iterable[Statistic], clusters: int) -> Kinds | None:
    """The kinds that all of these statistics can be computed from; None where that saves less than half.

    >>> from sparc_bench.metrics.statistic import Mean
    >>> kinds([Mean.of(np.array([1.0, 0.0, 1.0, 1.0]))], 4)
    Kinds(place_G=array([1, 0, 1, 1]), first_P=array([1, 0]))
    """
    place_G = np.zeros(clusters, dtype=np.int64)
    for statistic in statistics:
        cells = statistic.cells()
        if cells is None:
            return None
        for cluster_E, values in _one_of_each_cluster(*cells):
            # those with a cell become other kinds than those without one
            place_E, _ = _numbered([place_G[cluster_E], *values])
            place_G[cluster_E] = place_G.max() + 1 + place_E
    place_G, first_P = _numbered([place_G])
    return Kinds(place_G, first_P) if 2 * len(first_P) <= clusters else None


def _one_of_each_cluster(
    cluster_E: ndarray, values: tuple[ndarray, ...]
) -> Iterable[tuple[Int[ndarray, "O"], list[ndarray]]]:
    """The cells in parts that hold no cluster twice: every cluster's first cell, its second one, and so on."""
    order_E = np.argsort(cluster_E, kind="stable")
    sorted_E = cluster_E[order_E]
    opens_E = np.diff(sorted_E, prepend=-1) != 0
    turn_E = np.arange(len(sorted_E)) - np.flatnonzero(opens_E)[np.cumsum(opens_E) - 1]
    for turn in range(int(turn_E.max(initial=-1)) + 1):
        chosen = order_E[turn_E == turn]
        yield cluster_E[chosen], [column[chosen] for column in values]


def _numbered(columns: list[Shaped[ndarray, "E"]]) -> tuple[Int[ndarray, "E"], Int[ndarray, "P"]]:
    """A number from 0 for each distinct row of the columns, and where each of them is met first."""
    place_E = np.zeros(len(columns[0]), dtype=np.int64)
    first_P = place_E[:1]
    for column in columns:
        _, number_E = np.unique(column, return_inverse=True)
        joint_E = place_E * (int(number_E.max(initial=0)) + 1) + number_E
        _, first_P, place_E = np.unique(joint_E, return_index=True, return_inverse=True)
    return place_E, first_P
