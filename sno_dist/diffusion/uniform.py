"""Mixtures of uniform boxes under noise, in closed form: a score to compare learned ones with.

x = alpha x_0 + sigma eps, x_0 uniform on one of C boxes [l, h]. For each box and axis, with
a = (x - alpha l) / sigma and b = (x - alpha h) / sigma, p = (Phi(a) - Phi(b)) / (alpha (h - l))
and d ln p / dx = (phi(a) - phi(b)) / (sigma (Phi(a) - Phi(b))). Axes multiply, boxes average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sno_dist.diffusion.schedule import like

__all__ = ["UniformMixture"]


@dataclass(frozen=True, kw_only=True, slots=True)
class UniformMixture:
    """C boxes of equal weight; all arithmetic is float64, and holds far out in the tails.

    Args:
        low: (C, D) float64 lower corners.
        high: (C, D) float64 upper corners, above the lower ones.
    """

    low: Tensor
    high: Tensor

    def log_density(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """Ln p(x) of the noised law, in nats.

        Args:
            x: (N, D).
            alpha: (N,) factors of the signal, above 0.
            sigma: (N,) standard deviations of the noise, above 0.

        Returns:
            (N,) float64.
        """
        return self._boxes(x, alpha, sigma)[0].logsumexp(1) - math.log(len(self.low))

    def score(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
        """The gradient of `log_density` in x: (N, D) float64."""
        logs, slopes = self._boxes(x, alpha, sigma)
        return (logs.softmax(1)[..., None] * slopes).sum(1)

    def _boxes(self, x: Tensor, alpha: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Of each box the log density, (N, C), and its gradient, (N, C, D)."""
        x = x.double()[:, None]
        alpha, sigma = like(alpha.double(), x), like(sigma.double(), x)
        a, b = (x - alpha * self.low) / sigma, (x - alpha * self.high) / sigma
        width = alpha * (self.high - self.low) / sigma
        # Mirrored where the box lies to the left: ln Phi is precise in the left tail alone.
        mirrored = a + b > 0
        near, far = torch.where(mirrored, -b, a), torch.where(mirrored, -a, b)
        mass = _log_mass(near, far)
        # phi(near) - phi(far) = phi(near) (1 - exp((near^2 - far^2) / 2))
        steps = -torch.expm1(-0.5 * width * (a + b).abs())
        rise = (-0.5 * near.square() - mass).exp() * steps / (math.sqrt(2 * math.pi) * sigma)
        logs = (mass - (sigma * width).log()).sum(-1)
        return logs, torch.where(mirrored, -rise, rise)


def _log_mass(near: Tensor, far: Tensor) -> Tensor:
    """Ln(Phi(near) - Phi(far)) for far < near and near + far <= 0."""
    log_near = torch.special.log_ndtr(near)
    gap = torch.special.log_ndtr(far) - log_near
    small = gap > -math.log(2)
    # Each form where it does not cancel; the other's argument is kept harmless.
    fine = torch.where(small, gap, -1.0).expm1().neg().log()
    coarse = torch.where(small, -1.0, gap).exp().neg().log1p()
    return log_near + torch.where(small, fine, coarse)
