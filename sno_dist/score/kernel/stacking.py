"""How much of each of two density models to take (Smyth and Wolpert, 1999)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["stacking_share"]

STEPS = 100


def stacking_share(first: Tensor, second: Tensor, told: Tensor) -> Tensor:
    """The share b of the second model at which samples that neither has seen are likeliest.

    Equation: max_b sum ln((1 - b) p + b q), concave in b, by expectation-maximisation from 1/2.
    A share below half a sample's worth is none.

    Args:
        first: (P, N) ln p of samples.
        second: (P, N) ln q of the same.
        told: (P, N) 1 where there is a sample, else 0.

    Returns:
        (P,) on [0, 1]; 1/2 where there is no sample.
    """
    counts = told.sum(1)
    gap = second - first
    share = torch.full_like(counts, 0.5)
    for _ in range(STEPS):
        odds = (gap + (share / (1 - share)).log()[:, None]).sigmoid()
        moved = (odds * told).sum(1) / counts.clamp(min=1)
        share = torch.where(counts > 0, moved.clamp(1e-12, 1 - 1e-12), share)
    least = 0.5 / counts.clamp(min=1)
    share = torch.where((counts > 0) & (share < least), 0.0, share)
    return torch.where((counts > 0) & (share > 1 - least), 1.0, share)
