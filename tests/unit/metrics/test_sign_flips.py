import numpy as np
import pytest
from scipy import stats

from sparc_bench.metrics import sign_flips as module
from sparc_bench.metrics.sign_flips import holm, sign_flip_p

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("wins", "losses"), [(1, 0), (5, 0), (6, 0), (8, 3), (60, 40), (5, 5)])
def test_right_and_wrong_answers_have_mcnemars_exact_test(wins, losses):
    parts = np.r_[np.full(wins, 1.0), np.full(losses, -1.0), np.zeros(700)] / 825
    assert sign_flip_p(parts) == pytest.approx(stats.binomtest(wins, wins + losses).pvalue)
    assert sign_flip_p(-parts) == sign_flip_p(parts)


def test_few_unequal_parts_are_counted_out():
    parts = np.array([0.4, -0.1, 0.3, 0.2])
    signs = np.array(np.meshgrid(*[[1, -1]] * 4)).reshape(4, -1)
    expected = np.mean(np.abs(signs.T @ np.abs(parts)) >= 0.8 - 1e-12)
    assert sign_flip_p(parts) == expected == 4 / 16


def test_many_parts_are_drawn_and_agree_with_scipy():
    parts = np.random.default_rng(0).normal(0.15, 1, 200)
    expected = stats.permutation_test(
        (parts,), np.sum, permutation_type="samples", n_resamples=20_000, rng=np.random.default_rng(1)
    ).pvalue
    assert sign_flip_p(parts) == pytest.approx(expected, abs=0.015)
    assert sign_flip_p(parts) == sign_flip_p(parts)


def test_the_smallest_parts_of_very_many_are_as_good_as_normal(monkeypatch):
    parts = np.random.default_rng(2).normal(0.08, 1, 900)
    whole = sign_flip_p(parts)
    monkeypatch.setattr(module, "_SIGNED", 300)
    assert sign_flip_p(parts) == pytest.approx(whole, abs=0.005)


def test_equal_models_are_called_different_as_often_as_allowed():
    rng = np.random.default_rng(3)
    for expected in (3, 4, 6, 10, 30):
        found = [sign_flip_p(rng.choice([-1.0, 1.0], rng.poisson(expected))) for _ in range(2000)]
        assert np.mean(np.array(found) < 0.05) <= 0.05 + 0.01


def test_holms_correction():
    assert holm([]) == ()
    assert holm([0.04]) == (0.04,)
    assert holm([0.01, 0.5, 0.02, 0.9]) == pytest.approx((0.04, 1.0, 0.06, 1.0))
    corrected = holm([float("nan"), 0.02, 0.03])
    assert np.isnan(corrected[0])
    assert corrected[1:] == pytest.approx((0.04, 0.04))
