"""The log-mixture head: a score whose density is affine in u before the logarithm."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sno_dist.nn.layers import Fourier, mlp

__all__ = ["MixtureHead"]


class MixtureHead(nn.Module):
    """Score fields mixed as those of a mixture law are.

    Equation: F(u, x, c) = sum_j r_j g_j(x, c), r = softmax_j(ln softplus(A u + b)_j +
    psi_j(x, c)): the score of sum_j c_j(u) exp(psi_j) has this form, and the density of a law is
    linear in its embedding, so that laws never trained on are met where they are mixtures of
    those that were.

    Args:
        dims: Z, entries of x.
        embedding: U, entries of u.
        terms: Score fields.
        width: Width of the trunk.
        depth: Layers of the trunk.
        deviation: Standard deviation of the Fourier frequencies of c.
        detail: The same of those of x, per unit deviation of the data.
    """

    def __init__(
        self,
        dims: int,
        embedding: int,
        *,
        terms: int,
        width: int,
        depth: int,
        deviation: float,
        detail: float,
    ) -> None:
        super().__init__()
        waves = 2 * (width // 8)
        self.time = Fourier(waves, deviation)
        self.space = Fourier(waves, detail, dims)
        self.weights = nn.Linear(embedding, terms)
        self.trunk = mlp(dims + 2 * waves, width, depth, terms * (1 + dims))
        self.terms = terms

    def forward(self, u: Tensor, x: Tensor, c: Tensor) -> Tensor:
        """(N, U), (N, Z) of unit scale, (N,) noise coordinate, to (N, Z)."""
        out = self.trunk(torch.cat([x, self.space(x), self.time(c)], 1)).float()
        psi, fields = out.split([self.terms, self.terms * x.shape[1]], 1)
        logits = nn.functional.softplus(self.weights(u).float()).clamp_min(1e-12).log() + psi
        shares = logits.softmax(1)[..., None]
        return (shares * fields.unflatten(1, (self.terms, -1))).sum(1)
