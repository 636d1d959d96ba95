"""Gram matrices of kernel mean embeddings, tile by tile, over ranks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sno_dist.embedding.kernels import gaussian
from sno_dist.runtime import collectives
from sno_dist.runtime.progress import Progress

__all__ = ["gram_matrix"]

PHASE = "reducing the Gram matrix"


def gram_matrix(sets: Sequence[Tensor], bandwidth: float) -> Tensor:
    """Inner products between the mean embeddings of sample sets.

    Equation: K_ij = mean over a, b of k(x^i_a, x^j_b) (V-statistic). Tiles (i <= j) are dealt to
    ranks; each fills its own and leaves zeros elsewhere, so the sum is bitwise the same for
    every number of ranks.

    Args:
        sets: N tensors (n_i, D), the same on every rank.
        bandwidth: Of the Gaussian kernel, in the units of the samples.

    Returns:
        (N, N) float64, on every rank.

    **Collective.** Cost: N (N + 1) / 2 tiles of n^2 kernel values.
    """
    count = len(sets)
    gram = torch.zeros(count, count, dtype=torch.float64)
    pairs = [(i, j) for i in range(count) for j in range(i, count)]
    mine = [pairs[index] for index in collectives.world().deal(len(pairs))]
    with Progress(len(mine), "Gram matrix") as progress:
        for i, j in mine:
            gram[i, j] = gaussian(sets[i], sets[j], bandwidth).mean().cpu()
            progress.advance()
    gram = collectives.sum_over_ranks(gram, PHASE)
    return torch.triu(gram) + torch.triu(gram, 1).T
