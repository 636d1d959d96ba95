"""Sums of a kernel over all pairs of two sets, in blocks, and what follows from distances."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from sno_dist.embedding.kernels import Kernel, Samples, as_matrix, by_openblas
from sno_dist.errors import DataError

__all__ = ["kernel_mean", "mean_distance", "median_bandwidth", "pair_sums", "squared_distances"]

BLOCK = 1 << 19
"""Kernel values held at a time: 4 MiB, which stays in the cache between the passes over it."""

LINES = 512
"""Rows of a block at most: of 1,024 entries their form is small enough to be in warm memory."""


def pair_sums(
    kernel: Kernel,
    x: Tensor,
    x_lengths: Sequence[int],
    right: Any,
    y_lengths: Sequence[int],
) -> Tensor:
    """Sums of the kernel over all pairs between the sets of two panels.

    `BLOCK` values are held at a time, or D rows of them; each row is summed by itself, so the
    result does not depend on the block but by the rounding of the matrix product.

    Args:
        kernel: The kernel.
        x: (sum of n, D) float64, the samples of G sets laid end to end.
        x_lengths: n of each set.
        right: `kernel.right` of (sum of m, D) float64, the samples of H sets; made once where
            they meet many others.
        y_lengths: m of each.

    Returns:
        (G, H) float64.
    """
    lengths, width = list(y_lengths), sum(y_lengths)
    # As many rows at least as samples have entries, or the matrix product waits for memory.
    lines = max(1, min(LINES, max(BLOCK // max(1, width), x.shape[1])))
    blocks, sums = range(0, len(x), lines), x.new_empty(len(x), len(lengths))

    def fill(chosen: range) -> None:
        # One piece of memory for all blocks: fresh pages cost as much as the passes over them.
        space = x.new_empty(min(lines, len(x)), width)
        for start in chosen:
            rows = x[start : start + lines]
            values = kernel.values(kernel.left(rows), right, space[: len(rows)])
            for column, part in enumerate(values.split(lengths, 1)):
                sums[start : start + lines, column] = part.sum(1)

    threads = torch.get_num_threads() if by_openblas(x) else 1
    with _side_by_side(threads) as run:
        list(run(fill, [blocks[first::threads] for first in range(threads)]))
    return torch.stack([part.sum(0) for part in sums.split(list(x_lengths))])


@contextmanager
def _side_by_side(threads: int) -> Iterator[Callable[..., Iterable[None]]]:
    """`map` with calls side by side, and every library beneath them on one thread.

    Two libraries that take turns, each on all threads, wait for each other's idling ones; and
    what NumPy leaves to one thread is then done on all.
    """
    if threads == 1:
        yield map
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
            yield pool.map
    finally:
        torch.set_num_threads(before)


def kernel_mean(x: Samples, y: Samples, kernel: Kernel) -> float:
    """The mean of a kernel over all pairs: <mu_x, mu_y> in its Hilbert space.

    Pairs of a sample with itself count where `y` is `x` (a V-statistic).

    Args:
        x: (n, ...) samples.
        y: (m, ...) samples.
        kernel: The kernel.

    Raises:
        ValueError: If there are no samples.
    """
    if not (len(x) and len(y)):
        raise ValueError("a kernel mean needs samples on both sides")
    a, b = kernel.align(as_matrix(x), as_matrix(y))
    total = pair_sums(kernel, a, [len(a)], kernel.right(b), [len(b)])
    return float(total) / (len(a) * len(b))


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
    left = as_matrix(x)
    right = left if same else as_matrix(y)
    centre = (left.sum(0) + right.sum(0)) / (len(left) + len(right))
    left = left - centre
    right = left if same else right - centre
    squares = left.square().sum(1)[:, None] + right.square().sum(1) - 2 * (left @ right.T)
    squares = squares.clamp(min=0)
    return squares.fill_diagonal_(0) if same else squares


def mean_distance(x: Samples) -> float:
    """The mean distance between distinct samples, LINES rows at a time.

    Args:
        x: (n, ...) samples, n >= 2.
    """
    rows = as_matrix(x)
    total = 0.0
    for start in range(0, len(rows), LINES):
        block = squared_distances(rows[start : start + LINES], rows)
        block.diagonal(offset=start).zero_()
        total += float(block.sqrt().sum())
    return total / (len(rows) * (len(rows) - 1))


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
    rows = as_matrix(x)
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
