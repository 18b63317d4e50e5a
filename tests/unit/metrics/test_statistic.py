import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest

from sparc_bench.cli.evaluated import with_interval
from sparc_bench.errors import UserError
from sparc_bench.metrics import statistic as module
from sparc_bench.metrics.estimate import estimate, paired_difference
from sparc_bench.metrics.presence import Auroc
from sparc_bench.metrics.seeds import over_seeds
from sparc_bench.metrics.statistic import ClassMean, IoU, Mean, SparseMean
from sparc_bench.metrics.wilson import wilson_interval
from sparc_bench.records.record import Metric


@pytest.mark.parametrize("occupied", [0, 1, 7, 19, 20, 21, 40])
def test_a_mean_over_few_clusters_is_the_plain_quotient(occupied):
    rng = np.random.default_rng(occupied)
    count_G = np.zeros(40)
    count_G[rng.permutation(40)[:occupied]] = rng.integers(1, 4, occupied)
    sum_G = count_G * rng.random(40)
    weights_SG = rng.multinomial(40, np.full(40, 1 / 40), size=30).astype(np.float64)
    with np.errstate(invalid="ignore"):
        expected_S = (weights_SG * sum_G).sum(1) / (weights_SG * count_G).sum(1)
    np.testing.assert_allclose(Mean(sum_G, count_G).values_S(weights_SG), expected_S, rtol=1e-12)


def dense(values_I, class_I, cluster_I, clusters, classes):
    sum_GC, count_GC = np.zeros((2, clusters, classes))
    np.add.at(sum_GC, (cluster_I, class_I), values_I)
    np.add.at(count_GC, (cluster_I, class_I), 1.0)
    return sum_GC, count_GC


def items(seed, clusters=30, classes=5):
    rng = np.random.default_rng(seed)
    class_I = rng.choice([0, 1, 3, 4], 90)  # class 2 has no items
    return rng.random(90), class_I, rng.integers(0, clusters - 2, 90), clusters, classes


def test_a_class_mean_is_the_mean_of_the_quotients_of_its_tables():
    sum_GC, count_GC = dense(*items(0))
    weights_SG = np.random.default_rng(1).multinomial(30, np.full(30, 1 / 30), size=40).astype(np.float64)
    weights_SG[0], weights_SG[1] = 0.0, count_GC[:, 0] > 0
    with np.errstate(invalid="ignore"):
        quotient_SC = (weights_SG @ sum_GC) / (weights_SG @ count_GC)
    expected_S = [np.nan, *(np.nanmean(quotient_C) for quotient_C in quotient_SC[1:])]
    for statistic in (ClassMean.of(*items(0)), ClassMean.of_table(sum_GC, count_GC)):
        assert statistic.clusters == 30
        np.testing.assert_allclose(statistic.values_S(weights_SG), expected_S, rtol=1e-12)


def test_blocks_of_resamples_do_not_change_a_class_mean(monkeypatch):
    statistic = ClassMean.of(*items(2))
    weights_SG = np.random.default_rng(3).multinomial(30, np.full(30, 1 / 30), size=7).astype(np.float64)
    whole_S = statistic.values_S(weights_SG)
    monkeypatch.setattr(module, "_CELLS_AT_ONCE", 2 * len(statistic.class_E))
    assert statistic.values_S(weights_SG).tolist() == whole_S.tolist()


def test_a_class_mean_without_items_or_of_a_class_that_is_not_there():
    nothing = np.zeros(0, dtype=np.int64)
    assert np.isnan(ClassMean.of(np.zeros(0), nothing, nothing, 3, 2).value)
    with pytest.raises(IndexError, match=r"outside 0\.\.1"):
        ClassMean.of(np.ones(1), np.array([2]), np.array([0]), 3, 2)


def test_groups_of_a_thousand_are_the_means_of_their_parts():
    values_I, class_I, cluster_I, clusters, classes = items(4)
    means = SparseMean.of_groups(values_I, class_I, cluster_I, clusters, classes)
    weights_SG = np.random.default_rng(5).multinomial(30, np.full(30, 1 / 30), size=20).astype(np.float64)
    for label, sparse in enumerate(means):
        mine = class_I == label
        plain = Mean.of(values_I[mine], cluster_I[mine], clusters)
        assert sparse.values_S(weights_SG) == pytest.approx(plain.values_S(weights_SG), rel=1e-12, nan_ok=True)
        for name, array in plain.arrays().items():
            assert np.array_equal(sparse.arrays()[name], array)
        assert plain.as_sparse_mean().cluster_O.tolist() == sparse.cluster_O.tolist()


def test_a_thousand_classes_of_fifty_thousand_images_take_little_memory():
    label_N = np.arange(50_000) % 1000
    right_N = (label_N % 3 == 0).astype(np.float64)
    tracemalloc.start()
    statistic = ClassMean.of(right_N, label_N, np.arange(50_000), 50_000, 1000)
    groups = SparseMean.of_groups(right_N, label_N, np.arange(50_000), 50_000, 1000)
    assert (statistic.value, groups[3].value, groups[4].value) == (pytest.approx(0.334), 1.0, 0.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6  # a table of images and classes is 400 MB


@dataclass(frozen=True)
class Rating(Mean):
    """A mean of marks from 1 to 5, printed as it is."""

    kind = "rating"
    stored = False
    least = 1.0
    unit = "number"

    @property
    def most(self):
        return 5.0


def test_a_statistic_brings_its_range_unit_and_interval():
    constant = Rating.of(np.full(20, 5.0))
    found = estimate(constant)
    low, high = wilson_interval(1.0, 20)
    assert (found.method, found.low, found.high) == ("equal", 1 + 4 * low, 1 + 4 * high)
    metric = Metric.of(found, constant)
    assert with_interval(metric) == f"5.00 [{1 + 4 * low:.2f}, 5.00]"
    assert Metric.model_validate(metric.model_dump(mode="json")) == metric
    assert metric.range == (1.0, 5.0)
    usual = Metric.of(estimate(Mean.of(np.ones(20))), Mean.of(np.ones(20)))
    assert usual.range == (0.0, 1.0)
    assert not {"unit", "least", "most"} & usual.model_dump(mode="json").keys()
    with pytest.raises(UserError, match=r"kind 'mean' gives .* impossible \(value 5 is outside 0 to 1\)"):
        Metric.of(found, Mean.of(np.ones(20)))


def test_records_of_mce_from_before_the_direction_was_kept_are_errors():
    old = {"value": 1.2, "se": 0.1, "low": 1.0, "high": 1.4, "kind": "corruption_error", "n_clusters": 3}
    assert Metric.model_validate({**old, "method": "bootstrap"}).less_is_better


def holdings():
    """One statistic of each kind with the clusters that it averages, and the n of its interval."""
    count_G = np.array([2.0, 0.0, 1.0, 3.0])
    held_GC = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0], [1, 0, 0]])
    mean = Mean(count_G / 2, count_G)
    return [
        (mean, 3, 3),
        (mean.as_sparse_mean(), 3, 3),
        (ClassMean.of_table(held_GC * 0.5, held_GC), 3, 2),  # two classes, the rarer one in one cluster
        (IoU(held_GC * 0.5, held_GC.astype(float)), 3, 2),
        (IoU(np.zeros((4, 3)), np.zeros((4, 3))), 0, 0),
        (Auroc(np.array([2, 1, 0, 0]), np.arange(3), np.zeros(3, int), np.array([True, True, False])), 4, 2),
    ]


@pytest.mark.parametrize("index", range(6))
def test_what_an_interval_rests_on(index):
    statistic, occupied, effective_n = holdings()[index]
    assert (statistic.occupied, statistic.effective_n) == (occupied, effective_n)


def test_only_plain_means_are_sparse_means():
    for statistic, *_ in holdings():
        sparse = statistic.as_sparse_mean()
        assert (sparse is None) == isinstance(statistic, ClassMean | IoU | Auroc)
        if sparse is not None:
            assert sparse.value == statistic.value
    assert Rating.of(np.ones(3)).as_sparse_mean() is None


class Scored(Mean):
    """A score of 1 to 11: one more than ten times the share."""

    kind = "scored"
    unit = "number"
    least, most = 1.0, 11.0

    def values_S(self, weights_SG):
        return 1 + 10 * super().values_S(weights_SG)


def test_a_subclass_of_mean_that_computes_something_else_has_the_interval_of_that():
    some = estimate(Scored(np.r_[1.0, np.zeros(60)], np.ones(61)))
    assert 1.0 < some.low < some.value < some.high < 11.0
    share = estimate(Mean.of(np.r_[1.0, np.zeros(60)]))
    assert (some.method, share.method) == ("jackknife", "wilson")
    assert (some.se, some.high) == pytest.approx((10 * share.se, 1 + 10 * share.high), rel=0.03)


def test_seeds_and_differences_know_the_range():
    worst, best = Scored(np.zeros(20), np.ones(20)), Scored(np.ones(20), np.ones(20))
    assert over_seeds([worst, worst]).high == pytest.approx(estimate(worst).high)
    assert (over_seeds([best, best]).high, paired_difference(best, worst).high) == (11.0, 10.0)
