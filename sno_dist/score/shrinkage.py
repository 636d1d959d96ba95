"""Shrinkage of sample means of eigenfunctions, such that they stay the means of a law.

Shrunk one by one they would not: score matching's matrix would be indefinite. Both rules here
change the law instead: it is mixed with the stationary one, or noised a little more.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sno_dist.diffusion.eigenfunctions import Moments

__all__ = ["Shrinkage", "heat", "stein"]

Shrinkage = Literal["heat", "stein", "none"]

CANDIDATES = 96
"""Clocks that `heat` chooses from, besides 0."""


def stein(moments: Moments) -> Tensor:
    """The weight on each law, the rest on pi: m_n becomes w m_n.

    Equation: James and Stein, w = max(0, 1 - (K - 2) / sum_n m_n^2 / v_n), v_n the variance of
    the mean; 1 for K up to 2. It is also a ridge of (1 - w) / w.

    Returns:
        (P,).
    """
    beyond = moments.total.shape[1] - 2
    if beyond <= 0:
        return moments.total.new_ones(len(moments.total))
    ratio = moments.mean.square() / moments.variance.clamp_min(torch.finfo(torch.float64).tiny)
    return (1 - beyond / ratio.sum(1)).clamp_min(0)


def heat(moments: Moments, rates: Tensor, clocks: Tensor) -> Tensor:
    """How much longer to noise, at each noise level: m_n becomes exp(-r_n tau_0) m_n.

    Equation: tau_0(tau) minimises the unbiased estimate, sum_n r_n exp(-2 r_n tau) ((1 -
    exp(-r_n tau_0))^2 (m_n^2 - v_n) + exp(-2 r_n tau_0) v_n), of the squared error of the gradient
    of the density relative to pi. Without the rates and at tau = 0 it is the choice of a kernel
    density's bandwidth by least squares. It helps most near tau = 0; on the torus it may cost a
    little where tau has damped what is uncertain.

    Args:
        moments: Of K eigenfunctions under P laws.
        rates: (K,) r_n.
        clocks: (T,) tau.

    Returns:
        (P, T), each a candidate of a logarithmic grid or 0.

    Cost: T matrix products (P, K) x (K, CANDIDATES).
    """
    rates = rates.to(moments.total)
    low, high = 1e-3 / float(rates.max()), 10 / float(rates.min())
    grid = torch.logspace(0, 1, CANDIDATES, base=high / low, dtype=torch.float64) * low
    grid = torch.cat([torch.zeros(1, dtype=torch.float64), grid]).to(rates)
    kept = (-rates[:, None] * grid).exp()
    power, noise = moments.mean.square(), moments.variance
    found = []
    for clock in clocks.tolist():
        weight = rates * (-2 * clock * rates).exp()
        risk = (weight * power) @ kept.square() - 2 * (weight * (power - noise)) @ kept
        found.append(grid[risk.argmin(1)])
    return torch.stack(found, 1)
