"""A closed-form score that the network corrects: each distribution as a Gaussian.

Operator-informed score matching of degree two is a Gaussian's score, in any dimension and without
a solve (arXiv 2406.09084). Here the Gaussian is what a context set tells of its distribution:
means of distributions are N(0, B), samples within one N(mean, C), so that K samples of mean m
leave the predictive law N(m~, V); with no sample it is the population's. The network is then asked
for what the closed form leaves, in units of the posterior deviation that the closed form states.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["GaussianBase"]

FLOOR = 1e-4
"""Smallest variance of standardised latents that is believed."""
TIE = 1e-2
"""Of B beside C in the axes: where C leaves them open, as after the first small batches, they would
else be those of its rounding, and different for every number of ranks."""


class GaussianBase(nn.Module):
    """The predictive Gaussian of a context set, diagonal in the axes of C, nearly.

    Equation: with Q of C + B / 100, c_i = (Q'CQ)_ii, b_i = (Q'BQ)_ii and y = Q'x:
    m~_i = K b_i / (K b_i + c_i) m_i, V_i = c_i + b_i c_i / (K b_i + c_i). With level r and
    x~ = x / alpha, the noise that is told is r (V + r^2)^-1 (x~ - m~) - (V / (V + r^2))^(1/2) F, F
    the network's output: EDM's own preconditioning where m~ = 0 and V = 1, and a target F of unit
    variance as there.

    Args:
        dims: Z, entries of a latent.
    """

    covariances: Tensor
    basis: Tensor
    within: Tensor
    between: Tensor

    def __init__(self, dims: int) -> None:
        super().__init__()
        self.register_buffer("covariances", torch.zeros(2, dims, dims))
        self.register_buffer("basis", torch.eye(dims))
        self.register_buffer("within", torch.full((dims,), 0.5))
        self.register_buffer("between", torch.full((dims,), 0.5))

    @property
    def size(self) -> int:
        """Entries of the statistic: a mean and how many samples it is of."""
        return len(self.within) + 1

    def update(self, within: Tensor, between: Tensor, rate: float) -> None:
        """Move the population's covariances towards a batch's.

        Args:
            within: (Z, Z) float64 C, symmetric, of standardised latents.
            between: (Z, Z) B; an estimate may be indefinite.
            rate: Between 0 and 1, which forgets what was before.
        """
        self.covariances.lerp_(torch.stack([within, between]).to(self.covariances), rate)
        within, between = self.covariances.double()
        vectors = torch.linalg.eigh(within + TIE * between)[1]
        self.basis.copy_(vectors)
        self.within.copy_(((within @ vectors) * vectors).sum(0).clamp_min(FLOOR))
        self.between.copy_(((between @ vectors) * vectors).sum(0).clamp_min(FLOOR))

    def statistic(self, mean: Tensor, count: Tensor) -> Tensor:
        """What u carries: (P, Z) means of standardised latents and (P,) K to (P, Z + 1)."""
        return torch.cat([mean, count[:, None].to(mean)], 1)

    def forward(self, statistic: Tensor, x: Tensor, r: Tensor, out: Tensor) -> Tensor:
        """The noise that is told.

        Args:
            statistic: (N, Z + 1); noughts: no sample.
            x: (N, Z) x~.
            r: (N,) level.
            out: (N, Z) F.

        Returns:
            (N, Z) in the dtype of x.
        """
        # The closed form wants all its digits, whatever the network runs in.
        with torch.autocast(x.device.type, enabled=False):
            basis, c, b = (part.to(x) for part in (self.basis, self.within, self.between))
            mean, count = statistic[:, :-1].to(x), statistic[:, -1:].to(x)
            told = count * b + c
            gap = x @ basis - count * b / told * (mean @ basis)
            variance, r = c + b * c / told, r[:, None]
            total = variance + r.square()
            pull = r / total * gap - (variance / total).sqrt() * (out.to(x) @ basis)
            return pull @ basis.T
