"""Clusters that no statistic tells apart may be weighted as one: the same draws, the same values."""

import numpy as np
import pytest

from sparc_bench.metrics.bootstrap import cluster_weights
from sparc_bench.metrics.cluster_kinds import cluster_kinds
from sparc_bench.metrics.statistic import ClassMean, IoU, Mean, SparseMean

CLUSTERS, CLASSES = 400, 6


def statistics(rng):
    """Of images that each hold regions of up to three classes, some of them none."""
    items = 700
    cluster_I, class_I = rng.integers(0, CLUSTERS, items), rng.integers(0, CLASSES, items)
    credit_I = rng.choice([0.0, 0.5, 1.0], items)
    cluster_I[cluster_I % 2 == 1] = 1  # many alike, and one that holds many
    return {
        "mean": Mean.of(credit_I.round(), cluster_I, CLUSTERS),
        "class_mean": ClassMean.of(credit_I.round(), class_I, cluster_I, CLUSTERS, CLASSES),
        **dict(enumerate(SparseMean.of_groups(credit_I.round(), class_I, cluster_I, CLUSTERS, CLASSES))),
    }


def test_merged_values_are_those_of_the_clusters():
    of = statistics(np.random.default_rng(0))
    merged = cluster_kinds(of.values(), CLUSTERS)
    assert merged is not None
    assert 10 < len(merged.first_P) <= CLUSTERS / 2
    plain_SG = np.concatenate(list(cluster_weights(CLUSTERS, 50)))
    merged_SP = np.concatenate(list(cluster_weights(CLUSTERS, 50, place_G=merged.place_G)))
    assert np.array_equal(merged_SP, plain_SG @ np.eye(len(merged.first_P))[merged.place_G])
    for statistic in of.values():
        expected_S = statistic.values_S(plain_SG)
        assert merged.of(statistic).values_S(merged_SP) == pytest.approx(expected_S, abs=1e-14, nan_ok=True)
        assert merged.of(statistic).clusters == len(merged.first_P)


def test_clusters_of_one_kind_are_equal_in_every_statistic():
    of = statistics(np.random.default_rng(1))
    merged = cluster_kinds(of.values(), CLUSTERS)
    table_GV = np.concatenate(
        [
            np.stack([of["mean"].sum_G, of["mean"].count_G], axis=1),
            *(np.stack(list(of[k].arrays().values()), axis=1) for k in range(CLASSES)),
        ],
        axis=1,
    )
    assert np.array_equal(table_GV[merged.first_P][merged.place_G], table_GV)
    assert len(np.unique(table_GV, axis=0)) == len(merged.first_P)


def test_an_empty_cluster_is_not_one_that_got_nothing_right():
    sparse = SparseMean(np.array([0]), np.array([0.0]), np.array([1.0]), 6)
    merged = cluster_kinds([sparse], 6)
    assert merged.place_G.tolist() == [merged.place_G[0], *[1 - merged.place_G[0]] * 5]


def test_what_differs_too_much_or_is_no_sum_is_left_alone():
    rng = np.random.default_rng(2)
    assert cluster_kinds([Mean.of(rng.random(20))], 20) is None
    assert cluster_kinds([Mean.of(np.ones(20)), IoU(np.ones((20, 2)), np.ones((20, 2)))], 20) is None
    assert cluster_kinds([Mean.of(np.ones(20))], 20) is not None
