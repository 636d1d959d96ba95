"""Feature forms of the kernel mean embedding against the kernels that they stand for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sno_dist.embedding.feature_map import FeatureMap, KernelMeans, Nystrom, RandomFeatures
from sno_dist.embedding.features import Sums
from sno_dist.embedding.fit_map import spectral_frequencies
from sno_dist.embedding.fourier import FourierQuadrature, axis_rule
from sno_dist.embedding.kernels import (
    Gaussian,
    Kernel,
    Laplace,
    Matern,
    Radial,
    RationalQuadratic,
)

RNG = np.random.default_rng(0)


def points(count: int, dims: int) -> torch.Tensor:
    return torch.from_numpy(RNG.uniform(-3, 3, size=(count, dims)))


def quadrature(dims: int, bandwidth: float, error: float) -> FourierQuadrature:
    numbers = torch.tensor([bandwidth, error], dtype=torch.float64)
    return FourierQuadrature(numbers[0], torch.full((dims,), 6.0).double(), numbers[1])


def inner(feature_map: FeatureMap, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return feature_map.weigh(feature_map(x)) @ feature_map.weigh(feature_map(y)).T


def test_printed_rules() -> None:
    step, order = axis_rule(6.0, 1.0, 1e-6)
    assert (step, order) == (pytest.approx(0.5457021289, abs=1e-9), 11)
    assert axis_rule(6.0, 0.5, 1e-6)[1] == 16


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("error", [1e-3, 1e-6, 1e-9])
def test_quadrature_keeps_its_error(dims: int, error: float) -> None:
    feature_map, bandwidth = quadrature(dims, 1.0, error), 1.0
    x, y = points(60, dims), points(50, dims)
    gap = (inner(feature_map, x, y) - Gaussian(bandwidth)(x, y)).abs().max()
    assert float(gap) < error
    assert feature_map.size == feature_map(x).shape[1]


def test_one_sum_of_products_is_the_sum_of_the_features() -> None:
    x, lengths = points(30, 3), torch.tensor([1, 20, 7])
    feature_map = quadrature(3, 1.5, 1e-3)
    found = feature_map.sums(x, lengths)  # two rows beyond the sum are padding
    features = feature_map(x)
    exact = torch.stack([part.sum(0) for part in features[:28].split([1, 20, 7])])
    torch.testing.assert_close(found.total, exact, rtol=0, atol=1e-12)


def test_sums_add_up_over_shards_and_can_be_taken_back() -> None:
    x = points(100, 2)
    feature_map = quadrature(2, 0.5, 1e-6)

    def sums(rows: torch.Tensor) -> Sums:
        return feature_map.sums(rows, torch.tensor([len(rows)]))

    merged = sums(x[:13]) + sums(x[13:60]) + sums(x[60:])
    torch.testing.assert_close(merged.mean, sums(x).mean, rtol=0, atol=1e-14)
    torch.testing.assert_close((merged - sums(x[:13])).mean, sums(x[13:]).mean, rtol=0, atol=1e-14)


def test_the_variance_of_independent_random_features() -> None:
    gap, pairs, draws = 1.3, 64, 20_000
    frequencies = spectral_frequencies(
        Gaussian(1.0), pairs * draws, 1, orthogonal=False, source=RNG
    ).reshape(draws, pairs)
    found = np.cos(frequencies * gap).mean(1)
    exact = math.exp(-(gap**2) / 2)
    assert found.mean() == pytest.approx(exact, abs=0.002)
    assert found.var() == pytest.approx((1 - exact**2) ** 2 / (2 * pairs), rel=0.05)
    assert found.var() == pytest.approx(0.005195, rel=0.05)


@pytest.mark.parametrize(
    "kernel", [Gaussian(2.0), Matern(2.0, 0), Matern(2.0, 2), RationalQuadratic(2.0, 1.5)]
)
@pytest.mark.parametrize("orthogonal", [False, True])
def test_random_features_are_of_their_kernel(kernel: Radial, orthogonal: bool) -> None:
    frequencies = spectral_frequencies(kernel, 20_000, 3, orthogonal=orthogonal, source=RNG)
    x, y = points(20, 3), points(20, 3)
    found = inner(RandomFeatures(torch.from_numpy(frequencies)), x, y)
    # sd of an entry is at most .005
    assert float((found - kernel(x, y)).abs().max()) < 0.03


def test_orthogonal_frequencies_are_better_than_independent_ones() -> None:
    x = torch.from_numpy(RNG.normal(size=(40, 64)))
    kernel = Gaussian(8.0)
    errors = {}
    for orthogonal in (False, True):
        gaps = [
            (
                inner(
                    RandomFeatures(
                        torch.from_numpy(
                            spectral_frequencies(kernel, 256, 64, orthogonal=orthogonal, source=RNG)
                        )
                    ),
                    x,
                    x,
                )
                - kernel(x, x)
            )
            .square()
            .mean()
            for _ in range(5)
        ]
        errors[orthogonal] = float(torch.stack(gaps).mean().sqrt())
    assert errors[True] < 0.6 * errors[False]


@pytest.mark.parametrize("kernel", [Gaussian(1.0), Laplace(1.0)])
def test_nystrom_is_exact_on_the_span_of_its_anchors(kernel: Kernel) -> None:
    anchors = points(40, 2)
    values, vectors = torch.linalg.eigh(kernel(anchors, anchors))
    whiten = (vectors / values.clamp_min(1e-12).sqrt()) @ vectors.T
    found = inner(Nystrom(kernel, anchors, whiten), anchors, anchors)
    torch.testing.assert_close(found, kernel(anchors, anchors), rtol=0, atol=1e-7)


def test_kernel_means_are_products_with_the_anchors_mean_embeddings() -> None:
    anchors, lengths = points(30, 2), torch.tensor([10, 20])
    feature_map = KernelMeans(Gaussian(0.7), anchors, lengths)
    x = points(9, 2)
    whole = Gaussian(0.7)(x, anchors)
    exact = torch.stack([whole[:, :10].mean(1), whole[:, 10:].mean(1)], 1)
    torch.testing.assert_close(feature_map(x), exact, rtol=0, atol=1e-13)
    sums = feature_map.sums(x, torch.tensor([4, 3]))  # two rows are padding
    torch.testing.assert_close(sums.mean[1], exact[4:7].mean(0), rtol=0, atol=1e-13)
    moved = KernelMeans(Gaussian(0.7), torch.zeros_like(anchors), lengths)
    assert not torch.equal(moved(x), feature_map(x))
    moved.load_state_dict(feature_map.state_dict())
    assert torch.equal(moved(x), feature_map(x))
