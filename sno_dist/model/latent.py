"""Sums over a batch's latents, from which running statistics are made after all ranks added up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LatentMoments", "latent_sums"]


def latent_sums(latents: Tensor, *, products: bool) -> Tensor:
    """What ranks add up: one flat vector.

    Args:
        latents: (P, B, Z), B of each of P distributions.
        products: Whether covariances are wanted.

    Returns:
        (2 Z,) float64 sums and sums of squares; with products (2 Z + 2 Z Z,), behind them the
        sums of outer products of latents, and of B times those of each distribution's mean.
    """
    wide = latents.detach().double()
    rows, means = wide.flatten(0, 1), wide.mean(1)
    parts = [rows.sum(0), rows.square().sum(0)]
    if products:
        parts += [(rows.T @ rows).flatten(), latents.shape[1] * (means.T @ means).flatten()]
    return torch.cat(parts)


@dataclass(frozen=True, slots=True)
class LatentMoments:
    """The moments of a global batch.

    Args:
        mean: (Z,) float64.
        variance: (Z,).
        within: (Z, Z) covariance of latents of one distribution; none: not asked for.
        between: (Z, Z) covariance of the distributions' means, which may be indefinite.
    """

    mean: Tensor
    variance: Tensor
    within: Tensor | None
    between: Tensor | None

    @classmethod
    def of(cls, sums: Tensor, dims: int, distributions: int, targets: int) -> LatentMoments:
        """From the sums of `latent_sums` over a whole batch of P distributions of B targets.

        Equation: C = (S - M) / (P (B - 1)) within, (M / (P B) - mean mean') P / (P - 1) - C / B
        between, S the products' sum and M the means'; both unbiased.
        """
        count = distributions * targets
        total, square, products = sums.split([dims, dims, len(sums) - 2 * dims])
        mean = total / count
        variance = (square / count - mean.square()).clamp_min(0)
        if not len(products):
            return cls(mean, variance, None, None)
        whole, means = products.reshape(2, dims, dims)
        within = (whole - means) / (distributions * (targets - 1))
        apart = (means / count - torch.outer(mean, mean)) * distributions / (distributions - 1)
        return cls(mean, variance, within, apart - within / targets)
