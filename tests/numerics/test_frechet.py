from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.linalg import sqrtm

from sno_dist.errors import DataError
from sno_dist.evaluation.frechet import (
    WIDE,
    Moments,
    between,
    moments,
    pool_evenly,
    pool_weighted,
)


def distance(x: np.ndarray, y: np.ndarray) -> float:
    return between(moments(x), moments(y))


def gaussian(mean: list[float], covariance: np.ndarray) -> Moments:
    """The moments of a set with exactly this mean and unbiased covariance."""
    return Moments(count=1001, mean=np.array(mean), scatter=1000 * np.asarray(covariance))


def test_gaussians_that_differ_in_mean_alone() -> None:
    covariance = np.array([[2.0, 0.5], [0.5, 1.0]])
    found = between(gaussian([0, 0], covariance), gaussian([3, 4], covariance))
    assert found == pytest.approx(25, abs=1e-12)


def test_gaussians_with_commuting_covariances() -> None:
    # Then it is |m - n|^2 + sum (sqrt(a) - sqrt(b))^2.
    x, y = gaussian([1, 0, 0], np.diag([4.0, 9, 0])), gaussian([0, 0, 0], np.diag([1.0, 25, 16]))
    assert between(x, y) == pytest.approx(1 + 1 + 4 + 16, abs=1e-12)


def test_gaussians_in_general_position_agree_with_a_matrix_square_root() -> None:
    rng = np.random.default_rng(0)
    a, b = (m @ m.T for m in rng.normal(size=(2, 6, 6)))
    expected = np.trace(a + b - 2 * sqrtm(a @ b)).real
    x, y = gaussian([0] * 6, a), gaussian([0] * 6, b)
    assert between(x, y) == pytest.approx(expected, rel=1e-9)
    assert between(y, x) == pytest.approx(between(x, y), rel=1e-10)


def test_fewer_samples_than_features_give_a_real_number() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(5, 40)), rng.normal(size=(7, 40))
    found = distance(x, y)
    assert math.isfinite(found)
    assert found > 0
    assert distance(x, x) == pytest.approx(0, abs=1e-6)


def test_samples_of_known_gaussians() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(20000, 2)), 2 * rng.normal(size=(20000, 2)) + 1
    assert distance(x, y) == pytest.approx(2 + 2, rel=0.05)


def test_many_features_are_projected_and_keep_the_size_of_a_shift() -> None:
    rng = np.random.default_rng(5)
    x, shift = rng.standard_normal((40, 3000)), rng.standard_normal(3000)
    assert moments(x).scatter.shape == (WIDE, WIDE)
    # a random share WIDE / 3000 of a squared length has a relative deviation of 8 %
    assert distance(x, x + shift) == pytest.approx(float(shift @ shift), rel=0.35)
    assert np.trace(moments(x).scatter) == pytest.approx(39 * 3000, rel=0.05)


def test_moments_are_those_of_numpy_far_from_the_origin() -> None:
    x = np.random.default_rng(3).normal(size=(500, 3)) + 1e6
    np.testing.assert_allclose(moments(x).covariance, np.cov(x.T), rtol=1e-8)


def test_pooled_moments_are_those_of_the_union() -> None:
    rng = np.random.default_rng(4)
    sets = [rng.normal(size=(n, 4)) + 10 * i for i, n in enumerate((3, 50, 1, 20))]
    union = moments(np.concatenate(sets))
    (pooled,) = pool_weighted([moments(x) for x in sets], np.ones((1, 4)))
    np.testing.assert_allclose(pooled.mean, union.mean, atol=1e-12)
    np.testing.assert_allclose(pooled.scatter, union.scatter, rtol=1e-10, atol=1e-9)
    assert pooled.count == 74


def test_a_weight_counts_a_set_that_often() -> None:
    rng = np.random.default_rng(5)
    sets = [rng.normal(size=(9, 2)) + i for i in range(3)]
    (found,) = pool_weighted([moments(x) for x in sets], np.array([[2, 0, 1]]))
    expected = moments(np.concatenate([sets[0], sets[0], sets[2]]))
    np.testing.assert_allclose(found.scatter, expected.scatter, atol=1e-10)


def test_sets_of_any_size_weigh_the_same() -> None:
    rng = np.random.default_rng(9)
    sets = [np.repeat(rng.normal(size=(6, 2)) + i, n, 0) for i, n in enumerate((1, 7, 40))]
    parts = [moments(x) for x in sets]
    (found,) = pool_evenly(parts)
    alike = moments(np.concatenate([x[:: len(x) // 6] for x in sets]))
    np.testing.assert_allclose(found.mean, alike.mean, atol=1e-12)
    np.testing.assert_allclose(found.scatter / found.count, alike.scatter / alike.count, atol=1e-10)
    assert found.count == pytest.approx(sum(map(len, sets)))
    without = pool_evenly(parts, np.array([[True, False, True]]))[0]
    np.testing.assert_allclose(without.mean, (parts[0].mean + parts[2].mean) / 2, atol=1e-12)


def test_the_order_of_samples_changes_nothing() -> None:
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(80, 5)), rng.normal(size=(90, 5)) * 2
    assert distance(rng.permutation(x), rng.permutation(y)) == pytest.approx(distance(x, y))


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones((1, 3)), r"covariance.*1 samples.*at least 2"),
        (np.full((4, 3), np.nan), "not finite"),
        (np.ones((0, 3)), "too few features"),
    ],
)
def test_features_without_a_covariance_are_told(features: np.ndarray, message: str) -> None:
    with pytest.raises(DataError, match=message):
        distance(features, np.random.default_rng(7).normal(size=(9, 3)))
