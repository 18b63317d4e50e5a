import numpy as np
import pytest

from sparc_bench.metrics import influence as module
from sparc_bench.metrics.influence import class_mean_influence, left_out, mean_influence, weighted_sum
from sparc_bench.metrics.statistic import ClassMean, Mean


def test_leaving_images_out_finds_what_the_closed_form_says_of_a_mean():
    values = np.random.default_rng(0).random(60)
    found, closed = left_out(Mean.of(values).values_S, 60, 59), Mean.of(values).influence()
    assert found.shift_N == pytest.approx(closed.shift_N, abs=1e-12)
    assert found.variance == pytest.approx(closed.variance)
    assert found.bias == pytest.approx(0, abs=1e-12)
    assert found.parts_N.sum() == pytest.approx(values.mean())


def test_blocks_of_images_find_about_the_same(monkeypatch):
    values = np.random.default_rng(1).random(2000)
    found = left_out(Mean.of(values).values_S, 2000, 1999)
    assert len(found.cluster_N) == module.BLOCKS
    assert found.variance == pytest.approx(values.var(ddof=1) / 2000, rel=0.2)
    monkeypatch.setattr(module, "_CELLS_AT_ONCE", 7 * 2000)
    again = left_out(Mean.of(values).values_S, 2000, 1999)
    assert again.shift_N == pytest.approx(found.shift_N, abs=1e-12)


def test_the_bias_of_a_plug_in_variance_is_found():
    """The variance that divides by n is too small by 1 / n, which leaving out finds exactly (Quenouille 1956)."""
    values = np.random.default_rng(2).random(12)

    def plug_in(weights_SG):
        mean_S = weights_SG @ values / weights_SG.sum(axis=1)
        return weights_SG @ values**2 / weights_SG.sum(axis=1) - mean_S**2

    found = left_out(plug_in, 12, 11)
    assert found.value - found.bias == pytest.approx(values.var(ddof=1))


def test_parts_of_a_class_mean_are_its_sums():
    right, label = np.array([1.0, 0.0, 1.0, 1.0]), np.array([0, 0, 0, 1])
    found = ClassMean.of(right, label, np.arange(4), 4, 2).influence()
    assert found.parts_N == pytest.approx([1 / 6, 0, 1 / 6, 1 / 2])


def test_an_image_in_several_classes_counts_once():
    """Errors of one image in two classes go together, so that the variance is that of their sum."""
    rng = np.random.default_rng(3)
    credit_G = rng.random(50)
    cluster_E, class_E = np.tile(np.arange(50), 2), np.repeat([0, 1], 50)
    found = class_mean_influence(cluster_E, class_E, np.tile(credit_G, 2), np.ones(100))
    assert found.variance == pytest.approx(credit_G.var(ddof=1) / 50, rel=0.02)


def test_sums_of_statistics_on_other_clusters_are_numbered_alike():
    a = mean_influence(np.array([0, 2]), np.array([1.0, 0.0]), np.ones(2))
    b = mean_influence(np.array([1, 2]), np.array([1.0, 1.0]), np.ones(2))
    found = weighted_sum([a, b], [1.0, -1.0])
    assert found.cluster_N.tolist() == [0, 1, 2]
    assert found.value == -0.5 == pytest.approx(found.parts_N.sum())
    assert not found.of_images
