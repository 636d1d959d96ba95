from __future__ import annotations

import math

import numpy as np
import pytest

from sno_dist.embedding import pairs
from sno_dist.embedding.kernels import Gaussian, Matern, Polynomial
from sno_dist.errors import DataError
from sno_dist.evaluation import mmd

UNIT = Gaussian(1.0)


def biased(x: np.ndarray, y: np.ndarray) -> float:
    """|mu_x - mu_y|^2, every sample's pair with itself included."""
    own = pairs.kernel_mean(x, x, UNIT) + pairs.kernel_mean(y, y, UNIT)
    return own - 2 * pairs.kernel_mean(x, y, UNIT)


def test_the_unbiased_estimate_has_the_mean_of_the_closed_form() -> None:
    rng = np.random.default_rng(1)
    draws = [
        mmd.unbiased(rng.normal(size=(200, 2)), rng.normal((0.5, 0), size=(200, 2)), UNIT)
        for _ in range(400)
    ]
    assert np.mean(draws) == pytest.approx(0.0272070286, abs=0.003)


def test_of_equal_distributions_only_the_unbiased_estimate_has_mean_zero() -> None:
    rng = np.random.default_rng(2)
    sets = [(rng.normal(size=(20, 2)), rng.normal(size=(30, 2))) for _ in range(400)]
    unbiased = np.array([mmd.unbiased(x, y, UNIT) for x, y in sets])
    assert abs(unbiased.mean()) < 4 * unbiased.std() / math.sqrt(len(sets))
    # E = (1 - |mu|^2)(1/n + 1/m), with |mu|^2 = 1/3 for a standard normal in two dimensions.
    assert np.mean([biased(x, y) for x, y in sets]) == pytest.approx(
        (1 - 1 / 3) * (1 / 20 + 1 / 30), rel=0.05
    )


def test_two_points_by_hand() -> None:
    x, y = np.array([[0.0], [1.0]]), np.array([[0.0], [2.0], [4.0]])
    k = [math.exp(-(d**2) / 2) for d in range(5)]
    cross = (1 + k[2] + k[4] + k[1] + k[1] + k[3]) / 6
    within = 2 * k[1] / 2 + 2 * (k[2] + k[4] + k[2]) / 6
    assert mmd.unbiased(x, y, UNIT) == pytest.approx(within - 2 * cross, abs=1e-14)


def test_two_lattice_laws_have_the_exact_discrepancy() -> None:
    """Fine grids of two four-cell laws, whose exact MMD^2 is known."""
    step = (np.arange(16) + 0.5) / 16
    cell = np.stack(np.meshgrid(step, step), -1).reshape(-1, 2)

    def law(cells: list[tuple[int, int]]) -> np.ndarray:
        return np.concatenate([cell + np.array([column - 3, row - 3]) for row, column in cells])

    first = law([(0, 0), (0, 2), (1, 4), (5, 4)])
    second = law([(0, 0), (0, 2), (1, 3), (1, 5)])
    assert biased(first, second) == pytest.approx(0.0933978733, abs=1e-4)


def test_the_order_of_samples_and_the_block_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(60, 3)), rng.normal(size=(50, 3)) + 0.3
    whole = mmd.unbiased(x, y, UNIT)
    monkeypatch.setattr(pairs, "LINES", 17)
    assert mmd.unbiased(rng.permutation(x), rng.permutation(y), UNIT) == pytest.approx(
        whole, abs=1e-13
    )
    assert mmd.unbiased(y, x, UNIT) == pytest.approx(whole, abs=1e-13)


@pytest.mark.parametrize("kernel", [UNIT, Matern(0.7), Polynomial(2, 0.5)])
def test_within_leaves_every_sample_s_own_pair_out(kernel: Gaussian | Matern | Polynomial) -> None:
    x = np.random.default_rng(6).normal(size=(9, 2))
    gram = kernel(x, x).numpy()
    distinct = gram[~np.eye(9, dtype=bool)]
    assert mmd.within(x, kernel) == pytest.approx(distinct.mean(), abs=1e-13)


def test_the_floor_is_small_and_not_negative() -> None:
    rng = np.random.default_rng(5)
    floors = [mmd.floor(rng.normal(size=(400, 2)), UNIT, 400) for _ in range(20)]
    assert 0 < np.mean(floors) < 0.01
    assert min(floors) >= 0


@pytest.mark.parametrize("size", [20, 160, 320, 1000])
def test_the_floor_is_that_of_a_comparison_of_its_sizes(size: int) -> None:
    rng, count = np.random.default_rng(7), 320
    floors = [mmd.floor(rng.normal(size=(count, 2)), UNIT, size) for _ in range(300)]
    chance = [
        abs(mmd.unbiased(rng.normal(size=(size, 2)), rng.normal(size=(count, 2)), UNIT))
        for _ in range(300)
    ]
    # the standard error of each mean is some 5 %
    assert np.mean(floors) == pytest.approx(np.mean(chance), rel=0.2)


@pytest.mark.parametrize(("size", "expected"), [(3, 3), (5, 5), (6, 5), (900, 5)])
def test_real_samples_are_parted_evenly_and_whole(size: int, expected: int) -> None:
    rows = np.arange(11.0)[:, None]
    first, second = mmd.part(rows, size)
    assert len(first) == expected
    assert sorted([*first[:, 0], *second[:, 0]]) == list(range(11))
    assert abs(first.mean() - second.mean()) <= 1


def test_bad_samples_are_told() -> None:
    good = np.zeros((5, 2))
    with pytest.raises(DataError, match="generated samples hold values that are not finite"):
        mmd.unbiased(np.array([[1.0, math.nan], [0, 0]]), good, UNIT)
    with pytest.raises(DataError, match=r"too few real samples.*at least 2"):
        mmd.unbiased(good, good[:1], UNIT)
    with pytest.raises(DataError, match="differ in size"):
        mmd.unbiased(good, np.zeros((5, 3)), UNIT)
