from __future__ import annotations

import numpy as np
import pytest

from sno_dist.errors import DataError
from sno_dist.evaluation.intervals import bootstrap_mean, envelope, jackknife, wilson


def test_wilson_agrees_with_a_published_example_and_keeps_a_width_at_the_ends() -> None:
    # Newcombe (1998), table I: 81 of 263 and 0 of 20.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    assert wilson(20, 20) == pytest.approx((1 - 0.1611, 1), abs=5e-5)


def test_the_bootstrap_is_near_the_normal_interval_and_repeats_itself() -> None:
    values = list(np.random.default_rng(0).normal(3, 1, size=400))
    low, high = bootstrap_mean(values, 4000, 0, "x")
    half = 1.96 * np.std(values) / 20
    assert (low, high) == pytest.approx((np.mean(values) - half, np.mean(values) + half), abs=0.02)
    assert bootstrap_mean(values, 4000, 0, "x") == (low, high)
    assert bootstrap_mean(values, 4000, 0, "y") != (low, high)


def test_the_bootstrap_covers_the_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        low, high = bootstrap_mean(list(rng.exponential(size=60)), 500, trial, "coverage")
        hits += low <= 1 <= high
    assert 0.86 <= hits / 200 <= 0.99


def test_the_jackknife_of_a_mean_is_its_standard_error() -> None:
    values = np.random.default_rng(2).normal(5, 1, size=50)
    left_out = [float(np.delete(values, i).mean()) for i in range(50)]
    low, high = jackknife(float(values.mean()), left_out)
    assert (high - low) / 2 == pytest.approx(1.96 * values.std(ddof=1) / 50**0.5, rel=1e-3)


def test_an_envelope_holds_both() -> None:
    assert envelope((0.2, 0.4), (0.3, 0.9)) == (0.2, 0.9)


@pytest.mark.parametrize(("correct", "total"), [(3, 2), (-1, 5), (0, 0)])
def test_impossible_counts_are_told(correct: int, total: int) -> None:
    with pytest.raises(DataError, match="no proportion"):
        wilson(correct, total)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")]])
def test_no_interval_of_nothing(values: list[float]) -> None:
    with pytest.raises(DataError, match="no interval of x"):
        bootstrap_mean(values, 10, 0, "x")
