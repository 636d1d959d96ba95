from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import rbf_kernel

from sno_dist.embedding import pairs
from sno_dist.embedding.kernels import Gaussian, Polynomial
from sno_dist.embedding.pairs import (
    kernel_mean,
    median_bandwidth,
    pair_sums,
    squared_distances,
)
from sno_dist.errors import DataError

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("block", [1, 100, 1 << 19])
def test_sums_over_ragged_sets(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "BLOCK", block)
    x, y = RNG.normal(size=(65, 3)), RNG.normal(size=(40, 3))
    lengths, others = [1, 40, 24], [30, 9, 1]
    kernel = Polynomial(2)
    found = pair_sums(kernel, torch.tensor(x), lengths, kernel.right(torch.tensor(y)), others)
    whole = Polynomial(2)(x, y).numpy()
    rows, columns = np.cumsum([0, *lengths]), np.cumsum([0, *others])
    for i in range(3):
        for j in range(3):
            exact = whole[rows[i] : rows[i + 1], columns[j] : columns[j + 1]].sum()
            assert float(found[i, j]) == pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize("block", [1, 7, 64, 4096])
def test_the_mean_does_not_depend_on_the_block(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs, "BLOCK", block)
    x, y = RNG.normal(size=(65, 3)), RNG.normal(size=(40, 3))
    for a, b in ((x, y), (x, x)):
        exact = float(rbf_kernel(a, b, gamma=1 / (2 * 0.8**2)).mean())
        assert kernel_mean(a, b, Gaussian(0.8)) == pytest.approx(exact, abs=1e-14)


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


def test_the_median_bandwidth_is_the_median_distance() -> None:
    assert median_bandwidth(np.array([[0.0], [1.0], [3.0]])) == pytest.approx(2.0)
    normal = np.random.default_rng(0).normal(size=(4000, 1))
    # |x - y| for standard normals has median 1.349 / sqrt(2) * sqrt(2) * .7071 = .9539.
    assert median_bandwidth(normal, limit=2000) == pytest.approx(0.9539, abs=0.03)


@pytest.mark.parametrize(
    "samples", [np.zeros((1, 2)), np.zeros((9, 2)), np.array([[0.0], [math.nan], [1.0]])]
)
def test_no_bandwidth_from_samples_that_have_none(samples: np.ndarray) -> None:
    with pytest.raises(DataError, match="bandwidth"):
        median_bandwidth(samples)
