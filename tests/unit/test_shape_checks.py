import numpy as np
import pytest
from jaxtyping import TypeCheckError

from sparc_bench.metrics.statistic import Mean


def test_a_call_that_breaks_its_stated_shapes_fails_under_test():
    mean = Mean(np.array([1.0, 0.0]), np.ones(2))
    assert mean.values_S(np.ones((1, 2))).tolist() == [0.5]
    with pytest.raises(TypeCheckError):
        mean.values_S(np.ones(2))
