"""Whether two sample sets differ by more than chance: the permutation test of MMD^2.

If both sets are of one distribution, any other division of the pooled samples into sets of the
same sizes gives a discrepancy as large as the observed one about as often as not. The p-value is
exact whatever the kernel, the sizes and the distribution; only its power depends on them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sno_dist.embedding.kernels import Kernel
from sno_dist.evaluation.mmd import both

__all__ = ["divisions", "permutation_p_value", "statistics"]

LIMIT = 1000
"""Samples of each set at most: the pooled Gram matrix is then of 32 MB."""

TIE = 1e-12
"""What equal divisions may differ by in rounding, as a share of the kernel's size."""


def permutation_p_value(
    x: NDArray[Any],
    y: NDArray[Any],
    kernel: Kernel,
    permutations: int,
    generator: np.random.Generator,
) -> float:
    """How often chance alone would part the sets as much as they are.

    Equation: p = (1 + #{permuted MMD^2 >= observed}) / (1 + permutations), MMD^2 unbiased.

    Args:
        x: (n, ...) samples, n >= 2; LIMIT of them, evenly taken, where there are more.
        y: (m, ...) samples, m >= 2; likewise.
        kernel: The kernel, its length scale in data units.
        permutations: How many divisions are drawn.
        generator: Draws them.

    Raises:
        DataError: If there are fewer than two samples, or a value is not finite.
    """
    a, b = map(_thinned, both(x, y))
    pooled = np.concatenate([a, b])
    gram = kernel(pooled, pooled)
    found = statistics(gram, divisions(len(a), len(pooled), permutations, generator))
    margin = TIE * float(gram.diagonal().max())
    return float((found >= found[0] - margin).sum()) / (1 + permutations)


def divisions(
    first: int, count: int, permutations: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Which samples are in the first set: the given division, then random ones.

    Args:
        first: n, the samples of the first set, which come first.
        count: N, all samples.
        permutations: P.
        generator: Draws them.

    Returns:
        (N, 1 + P) of 0 and 1, n ones in each column.
    """
    members = np.zeros((1 + permutations, count))
    members[0, :first] = 1
    chosen = generator.random((permutations, count)).argsort(axis=1)[:, :first]
    np.put_along_axis(members[1:], chosen, 1, axis=1)
    return members.T


def statistics(gram: Tensor, members: NDArray[np.float64]) -> Tensor:
    """The unbiased MMD^2 of every division of the pooled samples.

    Equation, with G the Gram matrix less its diagonal, a a division's 0 and 1, and s = a'G a:
    s / (n(n-1)) + (1'G 1 - 2 a'G 1 + s) / (m(m-1)) - 2 (a'G 1 - s) / (nm).

    Args:
        gram: (N, N) float64, of the pooled samples.
        members: (N, R) of 0 and 1, n ones in each column.

    Returns:
        (R,) float64.
    """
    distinct = gram.clone().fill_diagonal_(0)
    chosen = torch.from_numpy(np.ascontiguousarray(members)).to(gram)
    n = float(members[:, 0].sum())
    m = len(gram) - n
    own = (chosen * (distinct @ chosen)).sum(0)
    touching = distinct.sum(0) @ chosen
    other = distinct.sum() - 2 * touching + own
    return own / (n * (n - 1)) + other / (m * (m - 1)) - 2 * (touching - own) / (n * m)


def _thinned(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(rows) <= LIMIT:
        return rows
    return rows[np.linspace(0, len(rows) - 1, LIMIT).round().astype(int)]
