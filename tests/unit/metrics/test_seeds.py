import numpy as np
import pytest
from scipy import stats

from sparc_bench.metrics import seeds
from sparc_bench.metrics.bootstrap import bootstrap, cluster_weights
from sparc_bench.metrics.seeds import degrees_of_freedom, over_seeds, seed_weights, seeds_difference
from sparc_bench.metrics.statistic import IoU, Mean
from sparc_bench.metrics.wilson import wilson_interval
from tests.toys.differences import paired_difference


def trainings(rng, number, images=150, quality=0.5, spread=0.0, noise=0.0):
    """Seeds of one recipe: a value of each image for all, of each seed for all images, and of both."""
    image_G = rng.normal(0, 0.2, images)
    return [Mean.of(quality + image_G + rng.normal(0, spread) + rng.normal(0, noise, images)) for _ in range(number)]


def constant(*values, images=40):
    return [Mean.of(np.full(images, value)) for value in values]


def ends(estimate):
    return estimate.low, estimate.high


def test_one_seed_is_the_bootstrap_over_images_and_says_so():
    statistic = Mean.of(np.random.default_rng(1).random(60))
    estimate = over_seeds([statistic])
    assert vars(estimate) == {**vars(bootstrap(statistic)), "seeds": (1,)}
    assert estimate.one_seed
    assert not over_seeds([statistic, statistic]).one_seed


def test_equal_seeds_give_the_interval_over_images_alone():
    statistic = Mean.of(np.random.default_rng(2).random(60))
    estimate = over_seeds([statistic] * 3)
    alone = bootstrap(statistic)
    assert (estimate.value, estimate.se, *ends(estimate)) == pytest.approx((alone.value, alone.se, *ends(alone)))
    assert estimate.seeds == (3,)


def test_images_without_variance_give_the_interval_over_seeds_alone():
    values = np.array([0.40, 0.44, 0.45, 0.51, 0.50])
    estimate = over_seeds(constant(*values))
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.se == pytest.approx(values.std(ddof=1) / np.sqrt(5), rel=0.03)
    by_t = stats.t.interval(0.95, 4, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(5))
    assert ends(estimate) == pytest.approx(by_t, abs=0.008)


def test_three_seeds_by_hand():
    # all seeds the lowest in one of 27 draws: the percentiles at 2.5 % are the seeds' own range
    estimate = over_seeds(constant(0.50, 0.52, 0.54))
    widen = stats.t.ppf(0.975, 2) / stats.norm.ppf(0.975)
    half = np.sqrt(3 / 2) * widen * 0.02
    assert ends(estimate) == pytest.approx((0.52 - half, 0.52 + half), abs=0.002)
    assert estimate.se == pytest.approx(0.02 / np.sqrt(3), rel=0.05)


def test_seeds_drawn_too_narrowly_are_spread_again():
    weights_ST = seed_weights(3, 200_000)
    values_T = np.array([0.1, 0.5, 0.3])
    drawn_S = weights_ST @ values_T
    assert drawn_S.mean() == pytest.approx(0, abs=1e-3)
    assert drawn_S.std() == pytest.approx(values_T.std(ddof=1) / np.sqrt(3), rel=0.01)
    assert seed_weights(1, 5).tolist() == [[0.0]] * 5


def test_recipes_draw_seeds_apart_from_one_another():
    a_ST, b_ST = seed_weights(3, 2000, side=0), seed_weights(3, 2000, side=1)
    assert not np.array_equal(a_ST, b_ST)
    assert abs(np.corrcoef(a_ST[:, 0], b_ST[:, 0])[0, 1]) < 0.1


def test_degrees_of_freedom_are_welchs():
    rng = np.random.default_rng(3)
    a, b = rng.normal(0, 1, 3), rng.normal(0, 4, 5)
    expected = stats.ttest_ind(a, b, equal_var=False).df
    assert degrees_of_freedom([a.var(ddof=1) / 3, b.var(ddof=1) / 5], [2, 4]) == pytest.approx(expected)
    assert degrees_of_freedom([1.0, 1.0], [float("inf"), 2]) == 8


def test_all_seeds_of_a_resample_see_the_same_images():
    rng = np.random.default_rng(4)
    values_TG = rng.random((3, 50))
    estimate = over_seeds([Mean.of(values_G) for values_G in values_TG])
    weights_SG = np.concatenate(list(cluster_weights(50, 2000)))
    values_ST = weights_SG @ values_TG.T / 50
    resamples_S = values_ST.mean(axis=1) + (seed_weights(3, 2000) * values_ST).sum(axis=1)
    assert estimate.se == pytest.approx(resamples_S.std(ddof=1))


def coverage(draw, truth, trials=300):
    return np.mean([(found := draw(np.random.default_rng(k))).low <= truth <= found.high for k in range(trials)])


@pytest.mark.slow
@pytest.mark.parametrize(("number", "spread", "noise"), [(3, 0.05, 0.1), (5, 0.05, 0.1), (3, 0.01, 0.2), (3, 0.0, 0.2)])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(number, spread, noise):
    found = coverage(lambda rng: over_seeds(trainings(rng, number, spread=spread, noise=noise)), 0.5)
    assert 0.90 <= found <= 0.99


@pytest.mark.slow
def test_without_the_corrections_three_seeds_would_be_far_too_sure():
    def naive(rng):
        values_T = 0.5 + rng.normal(0, 0.05, 3)
        drawn_S = values_T[np.random.default_rng(0).integers(0, 3, (500, 3))].mean(axis=1)
        low, high = np.quantile(drawn_S, [0.025, 0.975])
        return low <= 0.5 <= high

    assert np.mean([naive(np.random.default_rng(k)) for k in range(1000)]) < 0.8


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
        ends(over_seeds(constant(0.50, 0.52, 0.54))), abs=1e-9
    )


def test_nothing_to_resample_claims_no_certainty():
    estimate = over_seeds(constant(1.0, 1.0, 1.0))
    assert (estimate.method, *ends(estimate)) == ("wilson", *wilson_interval(1.0, 40))
    difference = seeds_difference(constant(0.5, 0.5), constant(0.4, 0.4))
    half = wilson_interval(0.0, 40)[1]
    assert difference.method == "wilson"
    assert ends(difference) == pytest.approx((0.1 - half, 0.1 + half))


def test_intervals_stay_within_what_is_possible():
    assert over_seeds(constant(0.9, 1.0)).high == 1.0
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


class Slow(Mean):
    """A statistic that takes long."""

    kind = "slow"
    resamples = 50


def test_the_fewest_resamples_that_any_seed_asks_for():
    rng = np.random.default_rng(9)
    slow, fast = Slow(rng.random(40), np.ones(40)), Mean.of(rng.random(40))
    weights_SG = next(iter(cluster_weights(40, 50)))
    expected_S = slow.values_S(weights_SG) - fast.values_S(weights_SG)
    assert seeds_difference([slow], [fast]).se == pytest.approx(expected_S.std(ddof=1))


def test_seeds_of_other_images_are_refused():
    with pytest.raises(RuntimeError, match=r"\[40, 41\]"):
        over_seeds([*constant(0.5), *constant(0.5, images=41)])


def test_the_same_draws_every_time():
    statistics = trainings(np.random.default_rng(8), 3, spread=0.03, noise=0.1)
    assert over_seeds(statistics) == over_seeds(statistics)


def test_images_are_drawn_a_cacheful_at_a_time_and_the_draws_are_the_same():
    parts = seeds._kept_weights(300, 2000)
    assert max(part.size for part in parts) <= seeds._CELLS_AT_ONCE
    assert np.array_equal(np.concatenate(parts), np.concatenate(list(cluster_weights(300, 2000))))
