import numpy as np
import pytest
from scipy import stats

from sparc_bench.metrics.estimate import estimate, paired_difference
from sparc_bench.metrics.presence import ObjectAP
from sparc_bench.metrics.statistic import ClassMean, IoU, Mean, SparseMean, Statistic
from sparc_bench.metrics.wilson import wilson_interval


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 17), (17, 17), (1, 1), (97, 100)])
def test_wilson_equals_scipy(hits, n):
    interval = stats.binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson_interval(hits / n, n) == pytest.approx((interval.low, interval.high), abs=1e-12)
    found = estimate(Mean.of((np.arange(n) < hits).astype(float)))
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_standard_error_and_interval_of_a_mean():
    values = np.random.default_rng(1).random(400)
    found = estimate(Mean.of(values))
    assert found.value == pytest.approx(values.mean())
    assert found.se == pytest.approx(values.std(ddof=1) / 20)
    expected = stats.t.interval(0.95, 399, loc=values.mean(), scale=values.std(ddof=1) / 20)
    assert (found.low, found.high) == pytest.approx(expected, abs=0.001)
    assert (found.clusters, found.method, found.bias) == (400, "wilson", 0.0)


def test_captions_of_one_image_belong_together():
    per_image = np.random.default_rng(2).random(200) < 0.5
    copies = np.repeat(per_image, 5).astype(float)
    clustered = estimate(Mean.of(copies, np.repeat(np.arange(200), 5)))
    assert clustered == estimate(Mean.of(per_image.astype(float)))
    assert clustered.se == pytest.approx(estimate(Mean.of(copies)).se * np.sqrt(5))


@pytest.mark.parametrize("credit", [0.0, 1.0, 0.5])
def test_no_spread_claims_no_certainty(credit):
    found = estimate(Mean.of(np.full(30, credit)))
    assert found.method == "equal"
    assert (found.low, found.high) == pytest.approx(wilson_interval(credit, 30))
    assert found.low <= credit <= found.high
    assert found.high - found.low > 0.1


def test_clusters_that_hold_something_count_not_items():
    all_wrong = Mean(np.zeros(20), np.r_[np.full(4, 5.0), np.zeros(16)])
    assert estimate(all_wrong).high == pytest.approx(wilson_interval(0, 4)[1])
    assert estimate(all_wrong).clusters == 4


def test_a_class_mean_without_spread_is_as_unsure_as_its_rarest_class():
    labels = np.r_[np.zeros(50, int), 1, 1]
    statistic = ClassMean.of(np.ones(52), labels, np.arange(52), 52, 2)
    assert estimate(statistic).low == pytest.approx(wilson_interval(1.0, 4)[0])


def test_one_cluster_has_the_widest_interval_of_all():
    found = estimate(Mean.of(np.array([1.0])))
    assert (found.low, found.high) == pytest.approx(wilson_interval(1.0, 1))


def test_nothing_to_average_is_nan():
    assert np.isnan(estimate(Mean(np.zeros(0), np.zeros(0))).value)
    assert np.isnan(estimate(Mean(np.zeros(3), np.zeros(3))).low)
    assert np.isnan(paired_difference(Mean(np.zeros(3), np.zeros(3)), Mean(np.zeros(3), np.zeros(3))).p)


def test_a_sparse_mean_has_the_interval_of_the_whole():
    sparse = SparseMean(np.array([1, 4, 5]), np.array([1.0, 0.0, 0.5]), np.ones(3), 9)
    assert estimate(sparse) == estimate(Mean(**sparse.arrays()))


def test_classes_of_one_image_are_not_lost():
    """A class drawn by no resample would leave the mean: over classes of a single image that made .76 of the error."""
    rng = np.random.default_rng(3)
    right = (rng.random(1000) < 0.4).astype(float)
    found = estimate(ClassMean.of(right, np.arange(1000), np.arange(1000), 1000, 1000))
    assert found.se == pytest.approx(np.sqrt(right.mean() * (1 - right.mean()) / 999))


def test_the_error_of_a_class_mean_is_that_within_classes():
    rng = np.random.default_rng(4)
    label = np.repeat(np.arange(5), 40)
    right = (rng.random(200) < np.repeat([0.1, 0.3, 0.5, 0.7, 0.9], 40)).astype(float)
    found = estimate(ClassMean.of(right, label, np.arange(200), 200, 5))
    within = np.mean([right[label == c].var(ddof=1) / 40 for c in range(5)])
    assert found.se == pytest.approx(np.sqrt(within / 5))
    assert found.se < 0.9 * estimate(Mean.of(right)).se


def test_a_value_biased_upward_has_its_interval_lower():
    """AP of few positives is too high on average: half of the interval's middle lies under the value."""
    rng = np.random.default_rng(5)
    yes = rng.random(600) < 0.1
    statistic = ObjectAP.of(
        rng.normal(size=600) + 1.2 * yes, np.repeat(np.arange(60), 10), np.tile(np.arange(10), 60), yes, 60
    )
    found = estimate(statistic)
    assert found.method == "jackknife"
    assert 0.02 < found.bias < 0.1
    assert found.low < (found.low + found.high) / 2 < found.value < found.high


def test_intervals_stay_within_the_range():
    assert estimate(Mean.of(np.r_[1.0, np.zeros(60)])).low >= 0.0
    assert estimate(Mean.of(np.r_[0.2, np.ones(60)])).high <= 1.0


def test_iou_value_and_interval():
    rng = np.random.default_rng(5)
    union = rng.integers(1, 50, (30, 3)).astype(float)
    found = estimate(IoU(np.floor(union * rng.random((30, 3))), union))
    assert found.low < found.value < found.high


def test_paired_difference_is_sharper_than_two_intervals():
    rng = np.random.default_rng(6)
    base = rng.random(500)
    b = Mean.of(base)
    found = paired_difference(Mean.of(base + 0.03 + rng.normal(0, 0.05, 500)), b)
    assert found.value == pytest.approx(0.03, abs=0.01)
    assert found.low > 0
    assert found.p < 0.001
    assert found.se < estimate(b).se / 3


def test_paired_difference_of_means_has_the_error_of_the_differences():
    rng = np.random.default_rng(7)
    a, b = rng.random(80), rng.random(80)
    difference = paired_difference(Mean.of(a), Mean.of(b))
    assert difference.se == pytest.approx((a - b).std(ddof=1) / np.sqrt(80))
    assert (difference.differing, difference.clusters) == (80, 80)
    assert difference.p == pytest.approx(stats.ttest_rel(a, b).pvalue, abs=0.02)


def test_models_that_never_differ_are_not_said_to_be_equal():
    correct = np.random.default_rng(8).random(50) < 0.5
    found = paired_difference(Mean.of(correct.astype(float)), Mean.of(correct.astype(float)))
    half = wilson_interval(0.0, 50)[1]
    assert (found.value, found.method, found.p, found.differing) == (0.0, "equal", 1.0, 0)
    assert (found.low, found.high) == pytest.approx((-half, half))


def kinds(right):
    """The same answers of 825 images as a share, a mean over captions, and a mean over classes of one and of many."""
    image, label = np.arange(825), np.arange(825) % 25
    return {
        "share": Mean.of(right),
        "captions": Mean.of(np.repeat(right, 5) * np.tile([1.0, 0.0, 1.0, 1.0, 0.5], 825), np.repeat(image, 5)),
        "sparse": Mean.of(right).as_sparse_mean(),
        "class mean": ClassMean.of(right, label, image, 825, 25),
        "classes of one": ClassMean.of(right, image, image, 825, 825),
    }


@pytest.mark.parametrize("kind", list(kinds(np.ones(825))))
@pytest.mark.parametrize(("wins", "losses"), [(1, 0), (2, 0), (4, 0), (5, 0), (6, 0), (9, 1), (7, 3)])
def test_few_images_that_differ_decide_by_the_exact_test(kind, wins, losses):
    a = (np.random.default_rng(9).random(825) < 0.7).astype(float)
    b = a.copy()
    b[np.flatnonzero(a == 1)[:wins]], b[np.flatnonzero(a == 0)[:losses]] = 0, 1
    found = paired_difference(kinds(a)[kind], kinds(b)[kind])
    assert found.differing == wins + losses
    assert found.p == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)
    # one interval and the test say the same
    assert (found.low > 0) == (found.p < 0.05)


def test_means_over_different_items_have_a_difference_and_no_count_of_images():
    """Objects that captions mention: their number is another one for each model."""
    rng = np.random.default_rng(10)
    count = rng.integers(0, 4, (2, 200)).astype(float)
    a, b = (Mean(np.floor(of * 0.8), of) for of in count)
    found = paired_difference(a, b)
    assert found.differing is None
    assert found.low < found.value < found.high


def test_a_difference_of_ious_is_tested_by_what_each_image_does():
    rng = np.random.default_rng(11)
    union = rng.integers(1, 50, (40, 3)).astype(float)
    better, worse = (IoU(np.floor(union * quality), union) for quality in (0.7, 0.6))
    found = paired_difference(better, worse)
    assert (found.p < 0.001, found.differing) == (True, None)
    assert paired_difference(better, better).p == 1
    one = IoU(better.intersection_GC.copy(), union)
    one.intersection_GC[0] = 0
    assert paired_difference(better, one).p > 0.3


def test_paired_difference_is_antisymmetric_and_refuses_other_sizes():
    rng = np.random.default_rng(9)
    a, b = Mean.of(rng.random(30)), Mean.of(rng.random(30))
    forth, back = paired_difference(a, b), paired_difference(b, a)
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))
    assert forth.p == back.p
    with pytest.raises(RuntimeError, match="30 and 31"):
        paired_difference(a, Mean.of(rng.random(31)))


def test_every_kind_of_statistic_has_one_name():
    stored = [cls for cls in Statistic.__subclasses__() if cls.stored and cls.__module__.startswith("sparc_bench")]
    names = [cls.kind for cls in stored]
    assert len(names) == len(set(names)) >= 3
