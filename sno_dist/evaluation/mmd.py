"""The squared maximum mean discrepancy between two sample sets (eq. 20 of arXiv 2410.08549).

The unbiased estimate is the mean of k over the pairs of distinct samples within each set, both
added, less twice its mean over cross pairs: denominators 1/(n(n-1)), 1/(m(m-1)) and 2/(nm). The
printed eq. 20 has a misprint in the second, and its right side is the square.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sno_dist.embedding.kernels import Kernel, as_matrix
from sno_dist.embedding.pairs import kernel_mean
from sno_dist.errors import DataError
from sno_dist.evaluation.rows import as_rows

__all__ = ["both", "floor", "part", "unbiased", "within"]


def unbiased(x: NDArray[Any], y: NDArray[Any], kernel: Kernel) -> float:
    """The unbiased MMD^2; its mean is 0 for equal distributions.

    Args:
        x: (n, ...) samples, n >= 2.
        y: (m, ...) samples, m >= 2.
        kernel: The kernel, its length scale in data units.

    Raises:
        DataError: If there are fewer than two samples, or a value is not finite.
    """
    a, b = both(x, y)
    return within(a, kernel) + within(b, kernel) - 2 * kernel_mean(a, b, kernel)


def within(rows: NDArray[np.float64], kernel: Kernel) -> float:
    """The mean of the kernel over all pairs of distinct rows, of which there are two or more."""
    count = len(rows)
    selves = float(kernel.diagonal(as_matrix(rows)).sum())
    return (count * count * kernel_mean(rows, rows, kernel) - selves) / (count * (count - 1))


def floor(real: NDArray[Any], kernel: Kernel, size: int) -> float:
    """What a perfect model scores by chance when `size` of its samples meet all m real ones.

    Equation: |MMD^2(a, b)| (1/size + 1/m) / (1/n_a + 1/n_b), a and b the two sets of `part`:
    between sets of one distribution the unbiased estimate spreads as the sum of one over their
    sizes. The magnitude is taken because it has either sign.

    Raises:
        DataError: If there are fewer than four samples, or a value is not finite.
    """
    rows = as_rows(real, "real samples", 4)
    first, second = part(rows, size)
    chance = (1 / size + 1 / len(rows)) / (1 / len(first) + 1 / len(second))
    return abs(unbiased(first, second, kernel)) * chance


def part(rows: NDArray[np.float64], size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Real samples as two sets, which differ by chance as generated and real ones would.

    The sets are of `size` and m - `size`, of half and half where `size` is more than half of m.
    The first is taken evenly, so an ordered set is parted fairly.

    Args:
        rows: (m, d) real samples, m >= 4.
        size: Generated samples that they are compared with, at least 2.
    """
    count = min(size, len(rows) // 2)
    first = np.zeros(len(rows), bool)
    first[(2 * np.arange(count) + 1) * len(rows) // (2 * count)] = True
    return rows[first], rows[~first]


def both(x: NDArray[Any], y: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two sets as checked rows of one size.

    Raises:
        DataError: If a set has fewer than two samples or a value that is not finite, or
            the samples differ in size.
    """
    a, b = as_rows(x, "generated samples", 2), as_rows(y, "real samples", 2)
    if a.shape[1] != b.shape[1]:
        raise DataError("generated and real samples differ in size", got=a.shape, expected=b.shape)
    return a, b
