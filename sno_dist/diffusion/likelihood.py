"""Log densities by the probability-flow ODE."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sno_dist.diffusion.divergence import divergence, probed
from sno_dist.diffusion.objective import EPSILON
from sno_dist.diffusion.ode import integrate
from sno_dist.diffusion.schedule import Schedule, like
from sno_dist.diffusion.solvers import ScoreAt, prior_scale

__all__ = ["log_density"]


def log_density(
    score: ScoreAt,
    schedule: Schedule,
    x: Tensor,
    *,
    probes: Tensor | None = None,
    tolerance: float = 1e-5,
) -> Tensor:
    """Ln p_0(x) in nats.

    Equation: ln p_0(x) = ln p_1(x_1) + integral over t of div v, v = f x - g^2 s / 2, integrated
    forward; div v = e' J e averaged over the probes, each fixed for the whole solve.

    Args:
        score: The score function.
        schedule: The SDE.
        x: (N, Z) points.
        probes: (R, N, Z) Rademacher vectors (Hutchinson); none: the exact trace, Z products.
        tolerance: Of the integration.

    Returns:
        (N,) log densities.

    Cost: probes (or Z) vector-Jacobian products for each evaluation.
    """

    def field(state: Tensor, t: Tensor) -> Tensor:
        y = state[:, :-1].detach().requires_grad_()
        with torch.enable_grad():
            half = 0.5 * like(schedule.diffusion(t), y)
            velocity = like(schedule.drift(t), y) * y - half * score(y, t)
            if probes is None:
                trace = divergence(velocity, y)
            else:
                trace = torch.stack([probed(velocity, y, probe) for probe in probes]).mean(0)
        return torch.cat([velocity.detach(), trace[:, None]], 1)

    start = torch.cat([x, torch.zeros_like(x[:, :1])], 1)
    end = integrate(field, start, EPSILON, 1.0, tolerance=tolerance)
    scale = prior_scale(schedule, torch.ones((), dtype=torch.float64)).item()
    dims = x.shape[1]
    normal = -0.5 * (end[:, :-1] / scale).square().sum(1) - dims * (
        math.log(scale) + 0.5 * math.log(2 * math.pi)
    )
    return normal + end[:, -1]
