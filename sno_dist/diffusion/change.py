"""Change of variables: scores, densities and reverse processes carried through y = phi(x).

With the score learned in x, a model samples and has densities in y (Robbins, arXiv 2412.07904).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from sno_dist.diffusion.maps.map import Map
from sno_dist.diffusion.schedule import Schedule, like
from sno_dist.diffusion.solvers import Noise, ScoreAt

__all__ = [
    "ItoTerm",
    "Solver",
    "euler_maruyama",
    "flow_field",
    "ito_terms",
    "pull_log_density",
    "pull_score",
    "push_log_density",
    "push_score",
    "pushed",
    "pushed_score",
    "reverse_step",
]

ItoTerm = Literal["drift", "divergence", "volume"]

Solver = Callable[[ScoreAt, Schedule, Tensor, Tensor, Noise], Tensor]
"""What the solvers of `solvers.py` are: from (score, schedule, x, times, noise) to samples."""


def push_score(phi: Map, x: Tensor, score: Tensor) -> Tensor:
    """The score of y = phi(x): s_y = J^-T (s_x - grad ln |det J|), (N, d).

    Args:
        phi: The map.
        x: (N, d).
        score: (N, d) scores s_x at x.
    """
    return phi.inverse_vjp(x, score - phi.log_det_gradient(x))


def pull_score(phi: Map, x: Tensor, score: Tensor) -> Tensor:
    """The score of x where y = phi(x) has `score`: s_x = J' s_y + grad ln |det J|, (N, d)."""
    return phi.vjp(x, score) + phi.log_det_gradient(x)


def push_log_density(phi: Map, x: Tensor, log_density: Tensor) -> Tensor:
    """Ln q(phi(x)) = ln p(x) - ln |det J|, (N,) in nats."""
    return log_density - phi.log_det(x)


def pull_log_density(phi: Map, x: Tensor, log_density: Tensor) -> Tensor:
    """Ln p(x) = ln q(phi(x)) + ln |det J|, (N,) in nats."""
    return log_density + phi.log_det(x)


def pushed_score(phi: Map, score: ScoreAt) -> ScoreAt:
    """The score in y at every noise level: that of phi(x_t), x_t being noised in x."""

    def in_y(y: Tensor, t: Tensor) -> Tensor:
        x = phi.inverse(y)
        return push_score(phi, x, score(x, t))

    return in_y


def pushed(phi: Map, solve: Solver) -> Solver:
    """A solver whose start and end are in y and whose steps are in x; none leaves the image.

    Args:
        phi: The map.
        solve: Any solver; one of the probability-flow ODE gives that in y exactly, because an ODE
            is carried without correction: dy/dt = J dx/dt.
    """

    def in_y(score: ScoreAt, schedule: Schedule, y: Tensor, times: Tensor, noise: Noise) -> Tensor:
        return phi.forward(solve(score, schedule, phi.inverse(y), times, noise))

    return in_y


def flow_field(phi: Map, score: ScoreAt, schedule: Schedule) -> Callable[[Tensor, Tensor], Tensor]:
    """The probability flow's velocity in y, J (f x - g^2 s_x / 2), for `ode.integrate`."""

    def field(y: Tensor, t: Tensor) -> Tensor:
        x = phi.inverse(y)
        half = 0.5 * like(schedule.diffusion(t), x)
        return phi.jvp(x, like(schedule.drift(t), x) * x - half * score(x, t))

    return field


def ito_terms(phi: Map, x: Tensor) -> dict[ItoTerm, Tensor]:
    """What stands in the reverse drift in y beside J (f x - g^2 s_x), each for g = 1.

    Equation: the reverse process in y is dy = [b - g^2 div(J J') - g^2 J J' s_y] dt + g J dw
    (Anderson), with b = J f x + g^2 Lap phi / 2 by Ito's lemma forward (`drift`), div_y(J J') =
    Lap phi + J grad ln |det J| (`divergence`) and J J' s_y = J s_x - J grad ln |det J|
    (`volume`). The three add up to -Lap phi / 2, Ito's lemma in reverse.

    Returns:
        (N, d) each.
    """
    laplacian, volume = phi.laplacian(x), phi.jvp(x, phi.log_det_gradient(x))
    return {"drift": 0.5 * laplacian, "divergence": -laplacian - volume, "volume": volume}


def reverse_step(
    phi: Map,
    score: ScoreAt,
    schedule: Schedule,
    x: Tensor,
    t: Tensor,
    after: Tensor,
    normals: Tensor,
    *,
    omit: Collection[ItoTerm] = (),
) -> tuple[Tensor, Tensor]:
    """One Euler-Maruyama step of the reverse process in y, and the same step in x.

    Equation, dt = t - after: m = -(f x - g^2 s_x) dt + g sqrt(dt) z; in y, y + J m +
    g^2 Lap phi dt / 2; in x, x + m.

    Args:
        phi: The map.
        score: s_x(x, t).
        schedule: The SDE of x.
        x: (N, d), with y = phi(x).
        t: Where the step begins, one time.
        after: Where it ends, below t.
        normals: z, (N, d).
        omit: What to leave out of the drift, to show that it is needed.

    Returns:
        (N, d) y, which may be outside the image, and (N, d) x.
    """
    dt, g2 = float(t - after), float(schedule.diffusion(t))
    drift = float(schedule.drift(t)) * x - g2 * score(x, t.to(x).expand(len(x)))
    move = (g2 * dt) ** 0.5 * normals - drift * dt
    return phi.forward(x) + phi.jvp(x, move) - g2 * dt * _correction(phi, x, omit), x + move


def euler_maruyama(
    phi: Map,
    score: ScoreAt,
    schedule: Schedule,
    y: Tensor,
    times: Tensor,
    noise: Noise,
) -> Tensor:
    """The reverse process by steps in y, the last level left by one denoising in x.

    A step in y that would leave the image is taken in x instead. From step to step x is kept: near
    the image's edge y rounds onto it.

    Args:
        phi: The map.
        score: s_x(x, t).
        schedule: The SDE of x.
        y: (N, d) images of the prior's samples.
        times: (T,) decreasing.
        noise: The next (N, d) standard normals.

    Returns:
        (N, d) samples in the image.
    """
    x = phi.inverse(y)
    for t, after in pairwise(times):
        in_y, in_x = reverse_step(phi, score, schedule, x, t, after, noise())
        x = torch.where(phi.contains(in_y)[:, None], phi.inverse(in_y), in_x)
    t = times[-1].to(x)
    clean = x + schedule.sigma(t).square() * score(x, t.expand(len(x)))
    return phi.forward(clean / schedule.alpha(t))


def _correction(phi: Map, x: Tensor, omit: Collection[ItoTerm]) -> Tensor:
    if not omit:
        return -0.5 * phi.laplacian(x)
    kept = [term for name, term in ito_terms(phi, x).items() if name not in omit]
    return torch.stack([torch.zeros_like(x), *kept]).sum(0)
