from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from scipy import stats

from sno_dist.embedding.kernels import Gaussian, Polynomial
from sno_dist.evaluation import mmd, permutation
from sno_dist.evaluation.permutation import divisions, permutation_p_value, statistics
from sno_dist.runtime.rng import generator

UNIT = Gaussian(1.0)


def p_value(x: np.ndarray, y: np.ndarray, permutations: int = 99, seed: int = 0) -> float:
    return permutation_p_value(x, y, UNIT, permutations, generator(seed, "permutation", "test"))


@pytest.mark.parametrize("kernel", [UNIT, Polynomial(2, 1.0)])
def test_every_statistic_is_that_of_a_naive_loop(kernel: Gaussian | Polynomial) -> None:
    rng = np.random.default_rng(0)
    pooled = rng.normal(size=(30, 3))
    members = divisions(12, 30, 40, rng)
    found = statistics(kernel(pooled, pooled), members)
    naive = [mmd.unbiased(pooled[a == 1], pooled[a == 0], kernel) for a in members.T]
    np.testing.assert_allclose(found, naive, rtol=0, atol=1e-12)


def test_the_first_division_is_the_given_one_and_all_are_of_its_size() -> None:
    members = divisions(5, 20, 300, np.random.default_rng(1))
    assert members.shape == (20, 301)
    assert members[:, 0].tolist() == [1] * 5 + [0] * 15
    assert (members.sum(0) == 5).all()
    # Every sample is in the first set about equally often.
    assert abs(members[:, 1:].mean(1) - 0.25).max() < 0.1


def test_over_all_divisions_the_statistic_has_mean_zero() -> None:
    """Half of the divisions are above a mean of zero, up to its skewness: none is in favour."""
    pooled = np.random.default_rng(2).normal(size=(9, 2)) * [1, 5]
    members = np.zeros((9, 126))
    for column, chosen in enumerate(combinations(range(9), 4)):
        members[list(chosen), column] = 1
    found = statistics(UNIT(pooled, pooled), members)
    assert float(found.mean()) == pytest.approx(0, abs=1e-15)
    assert 0.3 < float((found > 0).double().mean()) < 0.6


def test_the_statistic_does_not_know_which_set_is_which() -> None:
    rng = np.random.default_rng(3)
    pooled = rng.normal(size=(25, 2))
    members = divisions(10, 25, 50, rng)
    gram = UNIT(pooled, pooled)
    torch.testing.assert_close(
        statistics(gram, members), statistics(gram, 1 - members), rtol=0, atol=1e-14
    )


def test_p_values_of_swapped_sets_differ_by_chance_alone() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(40, 2)), rng.normal(size=(30, 2)) + 0.25
    assert p_value(x, y, 4000) == pytest.approx(p_value(y, x, 4000), abs=0.03)


def test_p_is_uniform_where_both_sets_are_of_one_distribution() -> None:
    rng = np.random.default_rng(5)
    found = [
        p_value(rng.exponential(size=(15, 2)), rng.exponential(size=(25, 2)), 99, draw)
        for draw in range(200)
    ]
    assert np.mean(found) == pytest.approx(0.5, abs=0.07)
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert np.mean(np.array(found) < 0.05) < 0.1


def test_a_shift_is_found_and_the_smallest_p_is_one_over_all_divisions() -> None:
    rng = np.random.default_rng(6)
    found = [
        p_value(rng.normal(size=(40, 2)), rng.normal(size=(40, 2)) + 0.8, 99, draw)
        for draw in range(40)
    ]
    assert np.mean(np.array(found) < 0.05) > 0.9
    assert min(found) == 0.01


def test_equal_divisions_count_as_ties_whatever_their_rounding() -> None:
    # Sets of equal size: one division in three of two against two is the observed one again.
    x, y = np.array([[0.1], [0.3]]), np.array([[5.7], [6.1]])
    found = p_value(x, y, 3000)
    assert found == pytest.approx(1 / 3, abs=0.03)


def test_many_samples_are_thinned_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(50, 2)), rng.normal(size=(40, 2)) + 1
    few = p_value(x[np.array([0, 12, 24, 37, 49])], y[np.array([0, 10, 20, 29, 39])])
    monkeypatch.setattr(permutation, "LIMIT", 5)
    assert p_value(x, y) == few
