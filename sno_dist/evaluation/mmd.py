"""The squared maximum mean discrepancy between two sample sets (eq. 20 of arXiv 2410.08549).

With p and q the kernel means over all pairs within each set and c that over cross pairs
(k(x, x) = 1), the biased estimate is p + q - 2c and the unbiased one is
(np - 1)/(n - 1) + (mq - 1)/(m - 1) - 2c: denominators 1/(n(n-1)), 1/(m(m-1)) and 2/(nm). The
printed eq. 20 has a misprint in the second, and its right side is the square.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sno_dist.embedding.kernels import kernel_mean
from sno_dist.errors import DataError
from sno_dist.evaluation.rows import as_rows

__all__ = ["biased", "combine", "floor", "unbiased"]


def unbiased(x: NDArray[Any], y: NDArray[Any], bandwidth: float, block: int = 2048) -> float:
    """The unbiased MMD^2 under the Gaussian kernel; its mean is 0 for equal distributions.

    Args:
        x: (n, ...) samples, n >= 2.
        y: (m, ...) samples, m >= 2.
        bandwidth: Kernel length scale in data units.
        block: Samples compared together, which bounds the memory.

    Raises:
        DataError: If there are fewer than two samples, or a value is not finite.
    """
    a, b = _both(x, y, 2)
    within = kernel_mean(a, a, bandwidth, block), kernel_mean(b, b, bandwidth, block)
    return combine(*within, kernel_mean(a, b, bandwidth, block), n=len(a), m=len(b))


def biased(x: NDArray[Any], y: NDArray[Any], bandwidth: float, block: int = 2048) -> float:
    """The biased MMD^2, |mu_x - mu_y|^2 >= 0; see `unbiased` for the arguments."""
    a, b = _both(x, y, 1)
    within = kernel_mean(a, a, bandwidth, block) + kernel_mean(b, b, bandwidth, block)
    return max(0.0, within - 2 * kernel_mean(a, b, bandwidth, block))


def combine(p: float, q: float, c: float, *, n: int, m: int) -> float:
    """The unbiased MMD^2 from kernel means that are known already.

    Args:
        p: Mean of k over all n^2 pairs of the first set, a sample with itself included.
        q: The same over the m^2 pairs of the second.
        c: Mean of k over the n m cross pairs.
        n: Samples in the first set, at least 2.
        m: Samples in the second, at least 2.
    """
    return (n * p - 1) / (n - 1) + (m * q - 1) / (m - 1) - 2 * c


def floor(real: NDArray[Any], bandwidth: float, block: int = 2048) -> float:
    """What a perfect model scores by chance: |MMD^2| between two halves of the real samples.

    Every other sample makes a half, so an ordered set is split evenly too. The magnitude is
    taken because the unbiased estimate of equal distributions has either sign.

    Raises:
        DataError: If there are fewer than four samples, or a value is not finite.
    """
    rows = as_rows(real, "real samples", 4)
    return abs(unbiased(rows[0::2], rows[1::2], bandwidth, block))


def _both(x: NDArray[Any], y: NDArray[Any], minimum: int) -> tuple[NDArray[np.float64], ...]:
    a, b = as_rows(x, "generated samples", minimum), as_rows(y, "real samples", minimum)
    if a.shape[1] != b.shape[1]:
        raise DataError("generated and real samples differ in size", got=a.shape, expected=b.shape)
    return a, b
