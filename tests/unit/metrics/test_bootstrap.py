from dataclasses import astuple

import numpy as np
import pytest
from scipy import stats

from sparc_bench.metrics import bootstrap as module
from sparc_bench.metrics.bootstrap import (
    bootstrap,
    bootstrap_all,
    cluster_weights,
    paired_differences,
)
from sparc_bench.metrics.statistic import ClassMean, IoU, Mean, SparseMean, Statistic
from sparc_bench.metrics.wilson import wilson_interval
from tests.toys.differences import paired_difference


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 17), (17, 17), (1, 1)])
def test_wilson_equals_scipy(hits, n):
    interval = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson_interval(hits / n, n) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_weights_are_multinomial_and_indifferent_to_chunks(monkeypatch):
    whole = np.concatenate(list(cluster_weights(7, 50)))
    assert whole.shape == (50, 7)
    assert (whole.sum(axis=1) == 7).all()
    monkeypatch.setattr(module, "_CHUNK_CELLS", 7 * 3)
    chunks = list(cluster_weights(7, 50))
    assert len(chunks) == 17
    assert np.array_equal(np.concatenate(chunks), whole)


def test_draws_are_indifferent_to_how_many_are_counted_at_once(monkeypatch):
    whole = np.concatenate(list(cluster_weights(7, 50)))
    monkeypatch.setattr(module, "_DRAWS_AT_ONCE", 7 * 4)
    assert np.array_equal(np.concatenate(list(cluster_weights(7, 50))), whole)


def test_weights_are_those_that_committed_intervals_were_drawn_with():
    [weights] = cluster_weights(5, 3)
    rng = np.random.default_rng([20240118, 5])
    assert weights.tolist() == [np.bincount(rng.integers(0, 5, 5), minlength=5).tolist() for _ in range(3)]


def test_standard_error_and_interval_of_a_mean():
    values = np.random.default_rng(1).random(400)
    estimate = bootstrap(Mean.of(values))
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.se == pytest.approx(values.std(ddof=1) / 20, rel=0.06)
    expected = stats.bootstrap((values,), np.mean, n_resamples=2000, method="percentile", rng=2).confidence_interval
    assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high), abs=0.005)
    assert (estimate.clusters, estimate.method) == (400, "bootstrap")


def test_captions_of_one_image_are_drawn_together():
    per_image = np.random.default_rng(2).random(200) < 0.5
    copies = np.repeat(per_image, 5).astype(float)
    clustered = bootstrap(Mean.of(copies, np.repeat(np.arange(200), 5)))
    independent = bootstrap(Mean.of(copies))
    assert clustered.se == pytest.approx(bootstrap(Mean.of(per_image.astype(float))).se, rel=1e-9)
    assert clustered.se == pytest.approx(independent.se * np.sqrt(5), rel=0.1)


@pytest.mark.parametrize("credit", [0.0, 1.0, 0.5])
def test_no_variance_claims_no_certainty(credit):
    estimate = bootstrap(Mean.of(np.full(30, credit)))
    assert estimate.method == "wilson"
    assert (estimate.low, estimate.high) == pytest.approx(wilson_interval(credit, 30))
    assert estimate.low <= credit <= estimate.high
    assert estimate.high - estimate.low > 0.1


def test_wilson_counts_clusters_that_hold_something_not_items():
    all_wrong = Mean(np.zeros(20), np.r_[np.full(4, 5.0), np.zeros(16)])
    assert bootstrap(all_wrong).high == pytest.approx(wilson_interval(0, 4)[1])
    assert bootstrap(all_wrong).clusters == 4


def test_wilson_of_a_class_mean_is_as_unsure_as_its_rarest_class():
    labels = np.r_[np.zeros(50, int), 1, 1]
    statistic = ClassMean.of(np.ones(52), labels, np.arange(52), 52, 2)
    assert bootstrap(statistic).low == pytest.approx(wilson_interval(1.0, 4)[0])


def test_one_cluster_has_the_widest_interval_of_all():
    estimate = bootstrap(Mean.of(np.array([1.0])))
    assert (estimate.low, estimate.high) == pytest.approx(wilson_interval(1.0, 1))


def test_nothing_to_average_is_nan():
    assert np.isnan(bootstrap(Mean(np.zeros(0), np.zeros(0))).value)
    assert np.isnan(bootstrap(Mean(np.zeros(3), np.zeros(3))).low)


def test_resamples_without_the_class_are_left_out():
    estimate = bootstrap(Mean(np.r_[1.0, 0.0, np.zeros(8)], np.r_[1.0, 1.0, np.zeros(8)]))
    assert estimate.clusters == 2
    assert np.isfinite([estimate.se, estimate.low, estimate.high]).all()


def test_shared_draws_give_the_same_as_single_ones():
    rng = np.random.default_rng(3)
    statistics = {"a": Mean.of(rng.random(40)), "b": Mean.of(rng.random(60)), "c": Mean.of(rng.random(40))}
    together = bootstrap_all(statistics)
    assert together == {name: bootstrap(statistic) for name, statistic in statistics.items()}


def test_merging_equal_clusters_changes_no_estimate(monkeypatch):
    rng = np.random.default_rng(10)
    label, right = rng.integers(0, 7, 300), (rng.random((2, 300)) < 0.6).astype(float)
    right[:, :3] = 1 / 3  # ties
    own = {"top1": Mean.of(right[0]), "macro": ClassMean.of(right[0], label, np.arange(300), 300, 7)}
    statistics = own | dict(enumerate(SparseMean.of_groups(right[0], label, np.arange(300), 300, 7)))
    pairs = {name: (Mean.of(right[0]), Mean.of(right[1])) for name in ("a", "b")}
    merged, merged_pairs = bootstrap_all(statistics), paired_differences(pairs)
    used = module.cluster_kinds(statistics.values(), 300)
    assert used is not None
    assert len(used.first_P) < 30
    monkeypatch.setattr(module, "cluster_kinds", lambda *_: None)
    for mine, plain in ((merged, bootstrap_all(statistics)), (merged_pairs, paired_differences(pairs))):
        assert mine.keys() == plain.keys()
        for name, estimate in plain.items():
            assert astuple(mine[name])[:4] == pytest.approx(astuple(estimate)[:4], abs=1e-12)
            assert astuple(mine[name])[4:] == astuple(estimate)[4:]


def test_more_resamples_for_those_that_ask_for_no_number_of_their_own():
    mean, biased = Mean.of(np.random.default_rng(11).random(50)), Biased(np.arange(50) / 50, np.ones(50))
    estimates = bootstrap_all({"mean": mean, "biased": biased}, 3000)
    draws = np.concatenate([mean.values_S(weights) for weights in cluster_weights(50, 3000)])
    assert estimates["mean"].se == pytest.approx(draws.std(ddof=1))
    assert estimates["biased"] == bootstrap(biased)


class Biased(Mean):
    """Larger under repetition: every resample lies above the value."""

    kind = "biased"
    resamples = 100

    def values_S(self, weights_SG):
        return super().values_S(weights_SG) * 0.5 + 0.1 * (weights_SG == 0).mean(axis=1)


def test_a_biased_statistic_keeps_its_value_inside_and_its_own_number_of_resamples():
    statistic = Biased(np.random.default_rng(4).random(5000), np.ones(5000))
    estimate = bootstrap(statistic)
    draws = np.concatenate([statistic.values_S(w) for w in cluster_weights(5000, 100)])
    assert statistic.value < draws.min()
    assert estimate.low < statistic.value < estimate.high
    assert estimate.se == pytest.approx(draws.std(ddof=1))


def test_intervals_stay_within_the_range_of_a_fraction():
    estimate = bootstrap(Mean.of(np.r_[1.0, np.zeros(60)]))
    assert estimate.low == 0.0 < estimate.high


def test_iou_value_and_interval():
    rng = np.random.default_rng(5)
    union = rng.integers(1, 50, (30, 3)).astype(float)
    estimate = bootstrap(IoU(np.floor(union * rng.random((30, 3))), union))
    assert estimate.low < estimate.value < estimate.high


def test_paired_difference_is_sharper_than_two_intervals():
    rng = np.random.default_rng(6)
    base = rng.random(500)
    a, b = Mean.of(base + 0.01), Mean.of(base)
    estimate = paired_difference(a, Mean.of(base + rng.normal(0, 0.05, 500) - 0.02))
    assert estimate.value == pytest.approx(0.03, abs=0.01)
    assert estimate.low > 0
    assert estimate.se < bootstrap(b).se / 3


def test_paired_difference_of_means_equals_the_bootstrap_of_the_differences():
    rng = np.random.default_rng(7)
    a, b = rng.random(80), rng.random(80)
    difference = paired_difference(Mean.of(a), Mean.of(b))
    shifted = bootstrap(Mean.of((a - b + 1) / 2))
    assert difference.se == pytest.approx(2 * shifted.se)
    assert difference.low == pytest.approx(2 * shifted.low - 1)


def test_models_that_never_differ_are_not_said_to_be_equal():
    correct = np.random.default_rng(8).random(50) < 0.5
    estimate = paired_difference(Mean.of(correct.astype(float)), Mean.of(correct.astype(float)))
    half = wilson_interval(0.0, 50)[1]
    assert (estimate.value, estimate.method) == (0.0, "wilson")
    assert (estimate.low, estimate.high) == pytest.approx((-half, half))


def test_paired_difference_is_antisymmetric_and_refuses_other_sizes():
    rng = np.random.default_rng(9)
    a, b = Mean.of(rng.random(30)), Mean.of(rng.random(30))
    forth, back = paired_difference(a, b), paired_difference(b, a)
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))
    with pytest.raises(RuntimeError, match="30 and 31"):
        paired_difference(a, Mean.of(rng.random(31)))


def test_every_kind_of_statistic_has_one_name():
    stored = [cls for cls in Statistic.__subclasses__() if cls.stored and cls.__module__.startswith("sparc_bench")]
    kinds = [cls.kind for cls in stored]
    assert len(kinds) == len(set(kinds)) >= 3
