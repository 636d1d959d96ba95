"""Intervals: how far a figure would move with other distributions, or with other samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sno_dist.errors import DataError
from sno_dist.runtime.rng import generator

__all__ = ["Interval", "bootstrap_mean", "envelope", "jackknife", "wilson"]

Interval = tuple[float, float]
TAILS, Z = (0.025, 0.975), 1.959963984540054
"""Where 95 % lie between, of a sample and of the standard normal law."""


def bootstrap_mean(values: Sequence[float], draws: int, seed: int, stream: str) -> Interval:
    """The 95 % percentile bootstrap interval of a mean over distributions.

    The distributions are resampled, not the samples in them: samples of one distribution share
    its difficulty (and its context sets), so they are no independent evidence.

    Args:
        values: One figure per distribution.
        draws: Resamples.
        seed: The run's seed.
        stream: What the interval is of.

    Raises:
        DataError: If there is no value, or one is not finite.
    """
    figures = np.asarray(values, dtype=np.float64)
    if figures.size == 0 or not np.isfinite(figures).all():
        raise DataError(f"no interval of {stream}", got=figures, expected="finite figures")
    source = generator(seed, "bootstrap", stream)
    count = figures.size
    times = source.multinomial(count, np.full(count, 1 / count), size=draws)
    low, high = np.quantile(times @ figures / count, TAILS)
    return float(low), float(high)


def jackknife(value: float, left_out: Sequence[float]) -> Interval:
    """The 95 % interval of a figure of all distributions together, such as a Frechet distance.

    A bootstrap would be biased: a resample has fewer distinct distributions, which alone moves
    such a figure up. Leaving out one group of distributions at a time hardly does.

    Args:
        value: The figure of all groups, at least 0.
        left_out: The figure without group i, for each of G >= 2 groups of about one size.
    """
    others = np.asarray(left_out, dtype=np.float64)
    spread = np.square(others - others.mean()).sum() * (len(others) - 1) / len(others)
    half = Z * math.sqrt(spread)
    return max(0.0, value - half), value + half


def wilson(correct: float, total: int) -> Interval:
    """Wilson's 95 % interval of a proportion; keeps its width where all or none are correct.

    Args:
        correct: Successes; not whole where trials are weighed.
        total: Trials, at least 1.

    Raises:
        DataError: If the counts are impossible.
    """
    if not 0 <= correct <= total or total < 1:
        raise DataError("no proportion", got=f"{correct} of {total}", expected="0 <= k <= n, n > 0")
    share, weight = correct / total, Z * Z / total
    centre = (share + weight / 2) / (1 + weight)
    half = Z * math.sqrt(share * (1 - share) / total + weight / (4 * total)) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)


def envelope(*intervals: Interval) -> Interval:
    """The smallest interval that holds all of the given ones."""
    return min(low for low, _ in intervals), max(high for _, high in intervals)
