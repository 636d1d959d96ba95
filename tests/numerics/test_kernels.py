from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import rbf_kernel

from sno_dist.embedding.kernels import (
    gaussian,
    kernel_mean,
    median_bandwidth,
    squared_distances,
)
from sno_dist.errors import DataError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("far", [0.0, 1e4])
@pytest.mark.parametrize("size", [2, 128])
def test_the_kernel_is_that_of_scikit_learn_and_survives_a_far_origin(
    size: int, far: float
) -> None:
    x, y = RNG.normal(size=(40, size)), RNG.normal(size=(30, size))
    expected = rbf_kernel(x, y, gamma=1 / (2 * 1.7**2))
    found = gaussian(x + far, y + far, 1.7)
    assert found.dtype == torch.float64
    # Adding 1e4 to the samples itself rounds them by 1e-12.
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-10)


def test_float32_samples_are_compared_in_float64() -> None:
    x = (RNG.normal(size=(50, 3)) + 1000).astype(np.float32)
    exact = np.square(x[:, None].astype(np.float64) - x).sum(-1)
    np.testing.assert_allclose(squared_distances(x, x).numpy(), exact, atol=1e-9)


def test_self_distances_are_exactly_zero_and_none_is_negative() -> None:
    x = RNG.normal(size=(60, 5)) * 1e3
    squares = squared_distances(x, x)
    assert (squares.diagonal() == 0).all()
    assert (squares >= 0).all()
    assert (squared_distances(x, x.copy()) >= 0).all()


def test_images_are_flattened_and_read_only_arrays_are_left_alone() -> None:
    x = RNG.random((4, 1, 3, 2))
    x.flags.writeable = False
    torch.testing.assert_close(gaussian(x, x, 1.0), gaussian(torch.tensor(x).flatten(1), x, 1.0))


@pytest.mark.parametrize("block", [1, 7, 64, 4096])
def test_the_mean_does_not_depend_on_the_block(block: int) -> None:
    x, y = RNG.normal(size=(65, 3)), RNG.normal(size=(40, 3))
    assert kernel_mean(x, y, 0.8, block) == pytest.approx(
        float(rbf_kernel(x, y, gamma=1 / (2 * 0.8**2)).mean()), abs=1e-14
    )
    assert kernel_mean(x, x, 0.8, block) == pytest.approx(
        float(rbf_kernel(x, x, gamma=1 / (2 * 0.8**2)).mean()), abs=1e-14
    )


def test_the_median_bandwidth_is_the_median_distance() -> None:
    assert median_bandwidth(np.array([[0.0], [1.0], [3.0]])) == pytest.approx(2.0)
    normal = RNG.normal(size=(4000, 1))
    # |x - y| for standard normals has median 1.349 / sqrt(2) * sqrt(2) * .7071 = .9539.
    assert median_bandwidth(normal, limit=2000) == pytest.approx(0.9539, abs=0.03)


@pytest.mark.parametrize(
    "samples", [np.zeros((1, 2)), np.zeros((9, 2)), np.array([[0.0], [math.nan], [1.0]])]
)
def test_no_bandwidth_from_samples_that_have_none(samples: np.ndarray) -> None:
    with pytest.raises(DataError, match="bandwidth"):
        median_bandwidth(samples)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.nan, math.inf])
def test_a_bandwidth_must_be_positive(bandwidth: float) -> None:
    with pytest.raises(ValueError, match="bandwidth"):
        gaussian(np.zeros((2, 1)), np.ones((2, 1)), bandwidth)
