"""Every kernel against scikit-learn's."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.gaussian_process import kernels as oracle
from sklearn.metrics.pairwise import laplacian_kernel, polynomial_kernel, rbf_kernel

from sno_dist.diffusion.axes import Circle, OrnsteinUhlenbeck
from sno_dist.embedding.heat import EigenFeatures, HeatKernel
from sno_dist.embedding.kernels import (
    Gaussian,
    Kernel,
    Laplace,
    Matern,
    Polynomial,
    RationalQuadratic,
    WeightedSum,
)

RNG = np.random.default_rng(0)
SIZES = (2, 128)
Oracle = Callable[[np.ndarray, np.ndarray], np.ndarray]

CASES: dict[str, tuple[Kernel, Oracle]] = {
    "gaussian": (Gaussian(1.7), lambda x, y: rbf_kernel(x, y, gamma=1 / (2 * 1.7**2))),
    "laplace": (Laplace(1.7), lambda x, y: laplacian_kernel(x, y, gamma=1 / 1.7)),
    "matern-1/2": (Matern(1.7, 0), oracle.Matern(1.7, nu=0.5)),
    "matern-3/2": (Matern(1.7, 1), oracle.Matern(1.7, nu=1.5)),
    "matern-5/2": (Matern(1.7, 2), oracle.Matern(1.7, nu=2.5)),
    "rational_quadratic": (RationalQuadratic(1.7, 0.6), oracle.RationalQuadratic(1.7, 0.6)),
    "polynomial": (Polynomial(3, 0.5), lambda x, y: polynomial_kernel(x, y, degree=3, coef0=0.5)),
    "sum": (
        WeightedSum((Gaussian(0.5), Polynomial(1, 0.0)), (2.0, 3.0)),
        lambda x, y: 2 * rbf_kernel(x, y, gamma=2) + 3 * x @ y.T / x.shape[1],
    ),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_is_that_of_scikit_learn(name: str, size: int) -> None:
    kernel, reference = CASES[name]
    x, y = RNG.normal(size=(40, size)), RNG.normal(size=(30, size))
    found = kernel(x, y)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), reference(x, y), atol=1e-10)
    np.testing.assert_allclose(
        kernel.diagonal(torch.from_numpy(x)).numpy(), np.diag(reference(x, x)), atol=1e-10
    )


@pytest.mark.parametrize("name", ["gaussian", "matern-5/2", "rational_quadratic"])
def test_radial_kernels_survive_a_far_origin(name: str) -> None:
    kernel, reference = CASES[name]
    x, y = RNG.normal(size=(40, 3)), RNG.normal(size=(30, 3))
    # Adding 1e4 to the samples itself rounds them by 1e-12.
    np.testing.assert_allclose(kernel(x + 1e4, y + 1e4).numpy(), reference(x, y), atol=1e-10)


def test_a_rational_quadratic_of_many_scales_is_gaussian() -> None:
    x = RNG.normal(size=(20, 2))
    np.testing.assert_allclose(
        RationalQuadratic(0.9, 1e8)(x, x).numpy(), Gaussian(0.9)(x, x).numpy(), atol=1e-7
    )


def test_images_are_flattened_and_read_only_arrays_are_left_alone() -> None:
    x = RNG.random((4, 1, 3, 2))
    x.flags.writeable = False
    kernel = Gaussian(1.0)
    torch.testing.assert_close(kernel(x, x), kernel(torch.tensor(x).flatten(1), x))


@pytest.mark.parametrize("kernel", [Gaussian, Laplace, Matern, RationalQuadratic])
@pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.nan, math.inf])
def test_a_bandwidth_must_be_positive(kernel: type, bandwidth: float) -> None:
    with pytest.raises(ValueError, match="bandwidth"):
        kernel(bandwidth)


@pytest.mark.parametrize("dims", [1, 2])
def test_the_heat_kernel_of_a_circle_is_gaussian(dims: int) -> None:
    heat, period = 0.05, 8.0
    bandwidth = 2 * math.sqrt(heat)
    x, y = RNG.uniform(-1, 1, (20, dims)), RNG.uniform(-1, 1, (30, dims))
    found = HeatKernel(Circle(period), 24, None, heat)(x, y)
    density = (period / (math.sqrt(2 * math.pi) * bandwidth)) ** dims
    exact = density * Gaussian(bandwidth)(x, y) - 1
    torch.testing.assert_close(found, exact, rtol=0, atol=1e-10)


def test_the_heat_kernel_of_ornstein_and_uhlenbeck_is_mehler_s() -> None:
    rho = math.exp(-2 * 0.4)
    x, y = RNG.normal(size=(20, 1)), RNG.normal(size=(1, 30))
    exponent = (2 * rho * x * y - rho**2 * (x**2 + y**2)) / (2 * (1 - rho**2))
    exact = np.exp(exponent) / math.sqrt(1 - rho**2) - 1
    found = HeatKernel(OrnsteinUhlenbeck(), 60, None, 0.4)(x, y.T)
    np.testing.assert_allclose(found.numpy(), exact, atol=1e-9)


def test_eigenfunctions_averaged_and_then_damped_are_the_kernel_s_features() -> None:
    kernel = HeatKernel(OrnsteinUhlenbeck(), 3, 2, 0.3)
    features = EigenFeatures(kernel, torch.tensor(4))
    x = torch.from_numpy(RNG.normal(size=(9, 4)))
    lengths = torch.tensor([4, 5])
    means = features.weigh(features.sums(x, lengths).mean)
    exact = torch.stack([part.mean() for part in kernel(x, x)[:4].split([4, 5], 1)])
    torch.testing.assert_close((means[:1] @ means.T)[0], exact)
    torch.testing.assert_close(features(x), kernel.basis(4)(x))
    assert features.size == len(kernel.basis(4).indices)
