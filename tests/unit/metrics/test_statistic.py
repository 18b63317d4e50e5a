import numpy as np
import pytest

from sparc_bench.metrics.statistic import Mean


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
