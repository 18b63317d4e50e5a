"""Principal components and position means of training features, against numpy's own decomposition."""

import numpy as np
import pytest

from sparc_bench.training.fitted_buffers import evenly, mean_per_position, principal_components


@pytest.fixture
def features():
    draw = np.random.default_rng(0)
    scale = np.array([9.0, 5.0, 3.0, 1.0, 0.5])
    turn, _ = np.linalg.qr(draw.normal(size=(5, 5)))
    return (draw.normal(size=(40, 6, 5)) * scale @ turn + 100).astype(np.float16)


def test_components_are_the_right_singular_vectors_of_the_centred_features(features):
    found = principal_components([features[:7], features[7:]], 3)
    rows = features.reshape(-1, 5).astype(np.float64)
    _, _, expected = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
    np.testing.assert_allclose(np.abs(found.T @ expected[:3].T), np.eye(3), atol=1e-9)
    np.testing.assert_allclose(found.T @ found, np.eye(3), atol=1e-12)


def test_the_sign_is_that_of_the_largest_component(features):
    found = principal_components([features], 5)
    turned = principal_components([-features], 5)
    assert (found[np.abs(found).argmax(0), range(5)] > 0).all()
    np.testing.assert_allclose(found, turned, atol=1e-9)


def test_the_mean_of_a_position_is_that_of_all_images(features):
    found = mean_per_position([features[:3].astype(np.float32), features[3:].astype(np.float32)])
    np.testing.assert_allclose(found, features.astype(np.float64).mean(0), rtol=1e-12)


def test_sampled_images_are_evenly_spaced_and_all_where_they_are_few():
    assert evenly(5) == [0, 1, 2, 3, 4]
    chosen = evenly(6000)
    assert len(chosen) == len(set(chosen)) == 2048
    assert set(np.diff(chosen)) == {2, 3}
    assert chosen[-1] < 6000
