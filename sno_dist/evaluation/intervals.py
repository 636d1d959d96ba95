"""Intervals: how far a figure would move with other distributions, or with other samples."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sno_dist.errors import DataError
from sno_dist.runtime.rng import generator

__all__ = ["Interval", "bootstrap_mean", "envelope", "jackknife", "wilson"]

Interval = tuple[float, float]
Z95 = 1.959963984540054


def bootstrap_mean(
    values: Sequence[float], draws: int, seed: int, stream: str, level: float = 0.95
) -> Interval:
    """The percentile bootstrap interval of a mean over distributions.

    The distributions are resampled, not the samples in them: samples of one distribution share
    its difficulty (and its context sets), so they are no independent evidence.

    Args:
        values: One figure per distribution.
        draws: Resamples.
        seed: The run's seed.
        stream: What the interval is of.
        level: Its coverage.

    Raises:
        DataError: If there is no value, or one is not finite.
    """
    figures = np.asarray(values, dtype=np.float64)
    if figures.size == 0 or not np.isfinite(figures).all():
        raise DataError(f"no interval of {stream}", got=figures, expected="finite figures")
    source = generator(seed, "bootstrap", stream)
    count = figures.size
    times = source.multinomial(count, np.full(count, 1 / count), size=draws)
    tail = (1 - level) / 2
    low, high = np.quantile(times @ figures / count, [tail, 1 - tail])
    return float(low), float(high)


def jackknife(value: float, left_out: Sequence[float], z: float = Z95) -> Interval:
    """The interval of a figure of all distributions together, such as a Frechet distance.

    A bootstrap would be biased: a resample has fewer distinct distributions, which alone moves
    such a figure up. Leaving out one group of distributions at a time hardly does.

    Args:
        value: The figure of all groups, at least 0.
        left_out: The figure without group i, for each of G >= 2 groups of about one size.
        z: Normal quantile; the default gives 95 %.
    """
    others = np.asarray(left_out, dtype=np.float64)
    spread = np.square(others - others.mean()).sum() * (len(others) - 1) / len(others)
    half = z * math.sqrt(spread)
    return max(0.0, value - half), value + half


def wilson(correct: float, total: int, z: float = Z95) -> Interval:
    """Wilson's score interval of a proportion; keeps its width where all or none are correct.

    Args:
        correct: Successes; not whole where trials are weighed.
        total: Trials, at least 1.
        z: Normal quantile; the default gives 95 %.

    Raises:
        DataError: If the counts are impossible.
    """
    if not 0 <= correct <= total or total < 1:
        raise DataError("no proportion", got=f"{correct} of {total}", expected="0 <= k <= n, n > 0")
    share, weight = correct / total, z * z / total
    centre = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / total + weight / (4 * total)) / (1 + weight)
    return max(0.0, centre - half), min(1.0, centre + half)


def envelope(*intervals: Interval) -> Interval:
    """The smallest interval that holds all of the given ones."""
    return min(low for low, _ in intervals), max(high for _, high in intervals)
