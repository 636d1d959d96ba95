"""The exact Gram matrix of mean embeddings, tile by tile, over ranks, resumable."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from sno_dist.embedding.kernels import Kernel
from sno_dist.embedding.pairs import pair_sums
from sno_dist.runtime import collectives
from sno_dist.runtime.share import share_of

__all__ = ["Sets", "gram_matrix", "panels_of"]

PHASE = "making the Gram matrix"
TILE_COST = 6e10
"""Of a tile, in units of a thirtieth of a nanosecond: two seconds or so, which a kill can lose."""
PASSES = 120
"""What the passes over a kernel value cost, in entries of a sample."""
PANEL_BYTES = 64 << 20
"""Samples of a panel; a rank holds two panels and their two forms."""


class Sets(Protocol):
    """N sets of samples that can be read one at a time."""

    @property
    def lengths(self) -> Sequence[int]:
        """Samples in each."""
        ...

    @property
    def dims(self) -> int:
        """D, entries of a sample."""
        ...

    def panel(self, items: Sequence[int]) -> Tensor:
        """Some sets laid end to end, (sum of n, D) float64."""
        ...


def gram_matrix(sets: Sets, kernel: Kernel, folder: Path) -> Tensor:
    """Inner products between the mean embeddings of N sample sets.

    Equation: K_ij = mean over a, b of k(x^i_a, x^j_b) (V-statistic). Sets are laid together in
    panels, tiles are pairs of panels, and neither depends on the number of ranks. Each tile is
    computed by one rank and kept as a file; a killed or preempted run goes on where it stopped.
    A rank fills its own tiles and leaves zeros elsewhere, so the sum over ranks has the same
    bits for every number of them.

    Args:
        sets: The samples, the same on every rank.
        kernel: The kernel.
        folder: Where finished tiles are kept, shared by the ranks.

    Returns:
        (N, N) float64, on every rank.

    Raises:
        Preempted: If the run was asked to stop; finished tiles are kept.

    **Collective.** Cost: N (N + 1) / 2 times n^2 kernel values; memory: two panels and a block.
    """
    panels = panels_of(sets.lengths, sets.dims)
    tiles = list(combinations_with_replacement(panels, 2))
    gram = torch.zeros(len(sets.lengths), len(sets.lengths), dtype=torch.float64)
    todo = _recall(gram, tiles, folder)
    held: tuple[range, Any] = range(0), None
    for rows, columns in share_of(todo, PHASE):
        if rows != held[0]:
            held = rows, kernel.right(sets.panel(rows))
        values = _tile(sets, kernel, *held, columns)
        _keep(_file(folder, rows, columns), values)
        gram[_place(rows, columns)] = values
    gram = collectives.sum_over_ranks(gram, PHASE)
    return torch.triu(gram) + torch.triu(gram, 1).T


def panels_of(lengths: Sequence[int], dims: int) -> list[range]:
    """Neighbouring sets cut into panels of bounded work and memory, one set at least in each."""
    most = min(math.sqrt(TILE_COST / (dims + PASSES)), PANEL_BYTES / (8 * dims))
    panels, first, size = [], 0, 0
    for item, length in enumerate(lengths):
        if item > first and size + length > most:
            panels.append(range(first, item))
            first, size = item, 0
        size += length
    panels.append(range(first, len(lengths)))
    return panels


def _recall(
    gram: Tensor, tiles: Sequence[tuple[range, range]], folder: Path
) -> list[tuple[range, range]]:
    """Fill in, each rank its share, the tiles that an earlier attempt left; return the others."""
    folder.mkdir(exist_ok=True)
    # Rank 0 alone looks, since ranks that looked at different moments would deal differently.
    there = collectives.broadcast([_file(folder, *tile).is_file() for tile in tiles], PHASE)
    known = [tile for tile, is_there in zip(tiles, there, strict=True) if is_there]
    for index in collectives.world().deal(len(known)):
        values = np.load(_file(folder, *known[index]), allow_pickle=False)
        gram[_place(*known[index])] = torch.from_numpy(values)
    return [tile for tile, is_there in zip(tiles, there, strict=True) if not is_there]


def _tile(sets: Sets, kernel: Kernel, rows: range, form: Any, columns: range) -> Tensor:
    """The mean kernel between each two sets of two panels, the first in the kernel's right form."""
    n, m = ([sets.lengths[item] for item in panel] for panel in (rows, columns))
    total = pair_sums(kernel, sets.panel(columns), m, form, n).T.cpu()
    return total / torch.outer(torch.tensor(n), torch.tensor(m))


def _place(rows: range, columns: range) -> tuple[slice, slice]:
    return slice(rows.start, rows.stop), slice(columns.start, columns.stop)


def _file(folder: Path, rows: range, columns: range) -> Path:
    return folder / f"{rows.start:06d}-{columns.start:06d}.npy"


def _keep(path: Path, values: Tensor) -> None:
    """Write a tile whole: a reader sees it or nothing, even after the machine is lost."""
    part = path.with_suffix(".part")
    with part.open("wb") as stream:
        np.save(stream, values.numpy(), allow_pickle=False)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
