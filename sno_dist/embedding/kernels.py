"""The Gaussian kernel between samples, in float64, and its means over all pairs.

Everything that compares distributions by a kernel (the kernel mean embedding, the maximum mean
discrepancy) goes through this module, so that all of them mean the same kernel.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sno_dist.errors import DataError

__all__ = ["Samples", "gaussian", "kernel_mean", "median_bandwidth", "squared_distances"]

Samples = Tensor | NDArray[np.generic]
"""Samples as rows, (n, ...) of any real type; axes beyond the first are flattened."""


def squared_distances(x: Samples, y: Samples) -> Tensor:
    """Squared Euclidean distances between the rows of `x` and of `y`.

    The expansion |x|^2 + |y|^2 - 2xy is fast but cancels far from the origin, so both sets are
    shifted by their common mean first, and what rounding leaves below zero is set to zero.

    Args:
        x: (n, ...) samples.
        y: (m, ...) samples. Where it is `x` itself, the diagonal is exactly 0.

    Returns:
        (n, m) float64, on the device of `x`.
    """
    same = y is x
    left = _rows(x)
    right = left if same else _rows(y)
    centre = (left.sum(0) + right.sum(0)) / (len(left) + len(right))
    left = left - centre
    right = left if same else right - centre
    squares = left.square().sum(1)[:, None] + right.square().sum(1) - 2 * (left @ right.T)
    squares = squares.clamp(min=0)
    return squares.fill_diagonal_(0) if same else squares


def gaussian(x: Samples, y: Samples, bandwidth: float) -> Tensor:
    """The Gaussian kernel k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2)).

    Args:
        x: (n, ...) samples.
        y: (m, ...) samples.
        bandwidth: Length scale in the units of the samples, above 0.

    Returns:
        (n, m) float64 in [0, 1], on the device of `x`.

    Raises:
        ValueError: If the bandwidth is not a finite positive number.
    """
    if not (bandwidth > 0 and math.isfinite(bandwidth)):
        raise ValueError(f"the bandwidth must be finite and above 0, got {bandwidth}")
    return squared_distances(x, y).mul_(-0.5 / bandwidth**2).exp_()


def kernel_mean(x: Samples, y: Samples, bandwidth: float, block: int = 2048) -> float:
    """The mean of the Gaussian kernel over all pairs: <mu_x, mu_y> in its Hilbert space.

    Pairs of a sample with itself count where `y` is `x` (a V-statistic). At most `block**2`
    kernel values are held at a time; the result depends on `block` by rounding alone.

    Args:
        x: (n, ...) samples.
        y: (m, ...) samples.
        bandwidth: Length scale in the units of the samples, above 0.
        block: Rows of `x`, and of `y`, compared together.

    Raises:
        ValueError: If there are no samples, or the bandwidth is not positive.
    """
    if not (len(x) and len(y)):
        raise ValueError("a kernel mean needs samples on both sides")
    left = _rows(x).split(block)
    right = left if y is x else _rows(y).split(block)
    total = 0.0
    for a in left:
        for b in right:
            total += float(gaussian(a, b, bandwidth).sum())
    return total / (len(x) * len(y))


def median_bandwidth(x: Samples, limit: int = 1000) -> float:
    """The median distance between distinct samples: a bandwidth for data of unknown scale.

    Args:
        x: (n, ...) samples, n >= 2.
        limit: Samples used at most, evenly spaced over `x`, since the cost is quadratic.

    Raises:
        DataError: If there are fewer than two samples, a value is not finite, or at least half of
            all pairs are equal.
    """
    if len(x) < 2:
        raise DataError("a bandwidth needs samples", got=len(x), expected="at least 2")
    rows = _rows(x)
    if len(rows) > limit:
        rows = rows[torch.linspace(0, len(rows) - 1, limit, dtype=torch.float64).round().long()]
    upper = torch.triu_indices(len(rows), len(rows), offset=1, device=rows.device)
    squares = squared_distances(rows, rows)[upper[0], upper[1]]
    median = math.sqrt(np.median(squares.cpu().numpy()))
    if not (median > 0 and math.isfinite(median)):
        raise DataError(
            "no bandwidth can be read off these samples",
            got=f"a median distance of {median}",
            expected="finite samples that differ",
            fix="set the bandwidth in the config, or mend the data",
        )
    return median


def _rows(x: Samples) -> Tensor:
    # Arrays are copied: they may be read-only, which torch cannot express.
    whole = x if isinstance(x, Tensor) else torch.from_numpy(np.array(x, dtype=np.float64))
    return whole.to(torch.float64).reshape(len(x), -1)
