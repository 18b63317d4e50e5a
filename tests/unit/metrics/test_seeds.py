import numpy as np
import pytest
from scipy import stats

from sparc_bench.metrics.estimate import estimate as over_images
from sparc_bench.metrics.estimate import paired_difference
from sparc_bench.metrics.seeds import degrees_of_freedom, over_seeds, seeds_difference
from sparc_bench.metrics.statistic import IoU, Mean
from sparc_bench.metrics.wilson import wilson_interval


def trainings(rng, number, images=150, quality=0.5, spread=0.0, noise=0.0):
    """Seeds of one recipe: a value of each image for all, of each seed for all images, and of both."""
    image_G = rng.normal(0, 0.2, images)
    return [Mean.of(quality + image_G + rng.normal(0, spread) + rng.normal(0, noise, images)) for _ in range(number)]


def constant(*values, images=40):
    return [Mean.of(np.full(images, value)) for value in values]


def ends(estimate):
    return estimate.low, estimate.high


def test_one_seed_is_the_interval_over_images_and_says_so():
    statistic = Mean.of(np.random.default_rng(1).random(60))
    estimate = over_seeds([statistic])
    alone = over_images(statistic)
    assert (estimate.value, estimate.se, *ends(estimate)) == pytest.approx((alone.value, alone.se, *ends(alone)))
    assert (estimate.seeds, estimate.method) == ((1,), alone.method)
    assert estimate.one_seed
    assert not over_seeds([statistic, statistic]).one_seed


def test_equal_seeds_give_the_interval_over_images_alone():
    statistic = Mean.of(np.random.default_rng(2).random(60))
    estimate = over_seeds([statistic] * 3)
    alone = over_images(statistic)
    assert (estimate.value, estimate.se, *ends(estimate)) == pytest.approx((alone.value, alone.se, *ends(alone)))
    assert estimate.seeds == (3,)


def test_images_without_variance_give_the_interval_over_seeds_alone():
    values = np.array([0.40, 0.44, 0.45, 0.51, 0.50])
    estimate = over_seeds(constant(*values))
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.se == pytest.approx(
        values.std(ddof=1) / np.sqrt(5),
    )
    by_t = stats.t.interval(0.95, 4, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(5))
    assert ends(estimate) == pytest.approx(by_t, abs=0.003)


def test_three_seeds_by_hand():
    estimate = over_seeds(constant(0.50, 0.52, 0.54))
    half = stats.t.ppf(0.975, 2) * 0.02 / np.sqrt(3)
    assert ends(estimate) == pytest.approx((0.52 - half, 0.52 + half), abs=0.002)
    assert estimate.se == pytest.approx(0.02 / np.sqrt(3))


def test_degrees_of_freedom_are_welchs():
    rng = np.random.default_rng(3)
    a, b = rng.normal(0, 1, 3), rng.normal(0, 4, 5)
    expected = stats.ttest_ind(a, b, equal_var=False).df
    assert degrees_of_freedom([a.var(ddof=1) / 3, b.var(ddof=1) / 5], [2, 4]) == pytest.approx(expected)
    assert degrees_of_freedom([1.0, 1.0], [float("inf"), 2]) == 8


def test_the_variance_is_that_over_images_plus_that_over_seeds():
    rng = np.random.default_rng(4)
    values_TG = rng.random((3, 50))
    estimate = over_seeds([Mean.of(values_G) for values_G in values_TG])
    over_images_alone = values_TG.mean(axis=0).var(ddof=1) / 50
    assert estimate.se**2 == pytest.approx(over_images_alone + values_TG.mean(axis=1).var(ddof=1) / 3)


def coverage(draw, truth, trials=300):
    return np.mean([(found := draw(np.random.default_rng(k))).low <= truth <= found.high for k in range(trials)])


@pytest.mark.slow
@pytest.mark.parametrize(("number", "spread", "noise"), [(3, 0.05, 0.1), (5, 0.05, 0.1), (3, 0.01, 0.2), (3, 0.0, 0.2)])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(number, spread, noise):
    found = coverage(lambda rng: over_seeds(trainings(rng, number, spread=spread, noise=noise)), 0.5)
    assert 0.90 <= found <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize(("spread", "least"), [(0.05, 0.91), (0.0, 0.95)])
def test_the_difference_of_two_recipes_holds_the_truth(spread, least):
    def draw(rng):
        image_G = rng.normal(0, 0.2, 150)

        def of(number):
            return [Mean.of(0.5 + image_G + rng.normal(0, spread) + rng.normal(0, 0.1, 150)) for _ in range(number)]

        return seeds_difference(of(3), of(5))

    assert coverage(draw, 0.0) >= least


def test_the_difference_is_paired_by_images():
    rng = np.random.default_rng(5)
    image_G = rng.random(300)
    a = [Mean.of(image_G + 0.03 + rng.normal(0, 0.02, 300)) for _ in range(3)]
    b = [Mean.of(image_G + rng.normal(0, 0.02, 300)) for _ in range(5)]
    estimate = seeds_difference(a, b)
    assert estimate.seeds == (3, 5)
    assert estimate.value == pytest.approx(0.03, abs=0.005)
    assert estimate.low > 0.02
    assert estimate.se < over_seeds(b).se / 3


def test_a_difference_of_single_seeds_is_the_one_of_compare():
    rng = np.random.default_rng(6)
    a, b = Mean.of(rng.random(60)), Mean.of(rng.random(60))
    estimate = seeds_difference([a], [b])
    expected = paired_difference(a, b)
    assert (estimate.value, estimate.se, *ends(estimate)) == pytest.approx(
        (expected.value, expected.se, *ends(expected))
    )
    assert estimate.one_seed
    assert seeds_difference([a, b], [b]).one_seed


def test_one_side_with_one_seed_is_widened_for_the_other_alone():
    estimate = seeds_difference(constant(0.50, 0.52, 0.54), constant(0.5))
    assert (estimate.low + 0.5, estimate.high + 0.5) == pytest.approx(
        ends(over_seeds(constant(0.50, 0.52, 0.54))), abs=0.002
    )


def test_nothing_to_resample_claims_no_certainty():
    estimate = over_seeds(constant(1.0, 1.0, 1.0))
    assert (estimate.method, *ends(estimate)) == ("equal", *wilson_interval(1.0, 40))
    difference = seeds_difference(constant(0.5, 0.5), constant(0.4, 0.4))
    half = wilson_interval(0.0, 40)[1]
    assert difference.method == "equal"
    assert ends(difference) == pytest.approx((0.1 - half, 0.1 + half))


def test_intervals_stay_within_what_is_possible():
    assert 0 <= over_seeds(constant(0.9, 1.0)).low < over_seeds(constant(0.9, 1.0)).high <= 1.0
    assert seeds_difference(constant(0.0, 0.9), constant(1.0, 0.1)).low == -1.0


def test_seeds_with_nothing_to_average_are_left_out():
    nothing = Mean(np.zeros(40), np.zeros(40))
    estimate = over_seeds([*constant(0.5, 0.6), nothing])
    assert (estimate.value, estimate.seeds) == (pytest.approx(0.55), (2,))
    assert np.isnan(over_seeds([nothing, nothing]).value)
    assert np.isnan(seeds_difference([nothing], constant(0.5)).low)
    assert np.isnan(over_seeds([Mean(np.zeros(0), np.zeros(0))]).value)


def test_other_kinds_of_statistics():
    rng = np.random.default_rng(7)
    union = rng.integers(1, 50, (30, 3)).astype(float)
    ious = [IoU(np.floor(union * rng.random((30, 3))), union) for _ in range(3)]
    estimate = over_seeds(ious)
    assert estimate.value == pytest.approx(np.mean([statistic.value for statistic in ious]))
    assert estimate.low < estimate.value < estimate.high


def test_seeds_of_other_images_are_refused():
    with pytest.raises(RuntimeError, match=r"\[40, 41\]"):
        over_seeds([*constant(0.5), *constant(0.5, images=41)])


def test_p_of_a_difference_is_unsure_of_images_and_of_trainings():
    rng = np.random.default_rng(8)
    image_G = rng.random(300)
    a, b = ([Mean.of(image_G + shift + rng.normal(0, 0.02, 300)) for _ in range(3)] for shift in (0.03, 0.0))
    assert seeds_difference(a, b).p < 0.01
    # all images agree on a difference that trainings of one recipe pass
    far, near = constant(0.50, 0.60, 0.55), constant(0.49, 0.53, 0.51)
    assert seeds_difference(far, near).p > 0.1
    assert seeds_difference(far[:1], near[:1]).p < 0.01
    assert seeds_difference(a[:1], a[:1]).p == 1
    assert np.isnan(over_seeds(a).p)
