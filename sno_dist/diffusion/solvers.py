"""Solvers: from the prior at t = 1 to samples, given only a score s(x, t) and a schedule.

All share one signature and treat each sample alone, so a sample does not depend on its batch.
The last level is left by one denoising, D = (x + sigma^2 s) / alpha. Formulas are those of the
frame x / alpha, level = sigma / alpha, where every schedule is variance exploding. Where there is
an eta, 0 follows the probability flow and 1 the reverse SDE; between them noise is exchanged more
slowly, and all have the same marginals.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sno_dist.diffusion.ode import integrate
from sno_dist.diffusion.schedule import Schedule, level, like

__all__ = [
    "START",
    "Noise",
    "ScoreAt",
    "ddim",
    "dpmpp_2m",
    "euler_maruyama",
    "exponential_step",
    "fresh_noise",
    "heun",
    "levels",
    "predictor_corrector",
    "prior_scale",
    "rk45",
    "uniform_times",
]

ScoreAt = Callable[[Tensor, Tensor], Tensor]
"""(N, Z) states and (N,) times to (N, Z) scores."""

Noise = Callable[[], Tensor]
"""The next standard normals, (N, Z), one stream per sample."""

START = 1e-3
"""The smallest time that sampling visits."""


def levels(schedule: Schedule, steps: int, *, rho: float = 7.0, top: float = 80.0) -> Tensor:
    """Times of a grid that is even in level**(1 / rho), from the prior down to START.

    Returns:
        (steps,) decreasing float64 times.
    """
    ends = level(schedule, torch.tensor([START, 1.0], dtype=torch.float64))
    low, high = ends[0], ends[1].clamp(max=top)
    share = torch.linspace(0, 1, steps, dtype=torch.float64)
    grid = (high ** (1 / rho) + share * (low ** (1 / rho) - high ** (1 / rho))) ** rho
    return schedule.time(grid)


def uniform_times(schedule: Schedule, steps: int) -> Tensor:
    """(steps,) decreasing float64 times, even in t from 1 to START."""
    del schedule
    return torch.linspace(1.0, START, steps, dtype=torch.float64)


def prior_scale(schedule: Schedule, t: Tensor) -> Tensor:
    """Standard deviation of x_t for standardised data: sqrt(alpha^2 + sigma^2).

    It matches the second moment of all distributions together. What a single one is off the centre
    by m remains: a prior at 0 is wrong by (alpha m / sigma)^2 / 2 nats, a hundredth at most for
    standardised data in the plane at sigma = 25.
    """
    return (schedule.alpha(t).square() + schedule.sigma(t).square()).sqrt()


def _at(value: Tensor, x: Tensor) -> Tensor:
    return value.to(x).expand(len(x))


def _denoise(score: ScoreAt, schedule: Schedule, x: Tensor, t: Tensor) -> Tensor:
    """D = (x + sigma^2 s) / alpha."""
    alpha, sigma = schedule.alpha(t).to(x), schedule.sigma(t).to(x)
    return (x + sigma.square() * score(x, _at(t, x))) / alpha


def exponential_step(
    schedule: Schedule, x: Tensor, target: Tensor, start: Tensor, end: Tensor, eta: float = 0.0
) -> Tensor:
    """From time `start` to `end`, as if the denoiser were `target` all the way, less the noise.

    Equation: x~ <- e^-(1 + eta) h x~ + (1 - e^-(1 + eta) h) D with h = ln(level_start / level_end).
    """
    h = (1 + eta) * (level(schedule, start) / level(schedule, end)).log()
    keep = schedule.alpha(end) / schedule.alpha(start) * torch.exp(-h)
    return float(keep) * x - float(schedule.alpha(end) * torch.expm1(-h)) * target


def fresh_noise(schedule: Schedule, start: Tensor, end: Tensor, eta: float) -> float:
    """Deviation of what a step adds, so that a point's marginal has sigma(end).

    Equation: sigma_end sqrt(1 - e^(-2 eta h)).
    """
    h = (level(schedule, start) / level(schedule, end)).log()
    return float(schedule.sigma(end) * (-torch.expm1(-2 * eta * h)).sqrt())


def ddim(
    score: ScoreAt,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    *,
    eta: float = 0.0,
) -> Tensor:
    """DDIM, the exponential Euler method: first order, one evaluation a step."""
    for i in range(len(times) - 1):
        now = _denoise(score, schedule, x, times[i])
        x = _step(schedule, x, now, times[i], times[i + 1], noise, eta)
    return _denoise(score, schedule, x, times[-1])


def dpmpp_2m(
    score: ScoreAt,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    *,
    eta: float = 0.0,
) -> Tensor:
    """DPM-Solver++(2M), or SDE-DPM-Solver++(2M): second order, one evaluation a step.

    Equation: DDIM's step to D~ = D_i + h_i / (2 h_{i-1}) (D_i - D_{i-1}),
    h_i = ln(level_i / level_{i+1}).
    """
    logs = level(schedule, times).log()
    before: Tensor | None = None
    for i in range(len(times) - 1):
        now = _denoise(score, schedule, x, times[i])
        h = logs[i] - logs[i + 1]
        guess = now
        if before is not None:
            guess = now + float(h / (2 * (logs[i - 1] - logs[i]))) * (now - before)
        x = _step(schedule, x, guess, times[i], times[i + 1], noise, eta)
        before = now
    return _denoise(score, schedule, x, times[-1])


def _step(
    schedule: Schedule,
    x: Tensor,
    target: Tensor,
    start: Tensor,
    end: Tensor,
    noise: Noise,
    eta: float,
) -> Tensor:
    x = exponential_step(schedule, x, target, start, end, eta)
    return x + fresh_noise(schedule, start, end, eta) * noise() if eta else x


def heun(score: ScoreAt, schedule: Schedule, x: Tensor, times: Tensor, noise: Noise) -> Tensor:
    """Heun's method on dx~/dlevel = (x~ - D) / level: second order, two evaluations a step."""
    del noise
    grid, alphas = level(schedule, times), schedule.alpha(times)
    scaled = x / float(alphas[0])
    for i in range(len(times) - 1):
        here, there = float(grid[i]), float(grid[i + 1])
        slope = (scaled - _denoise(score, schedule, scaled * float(alphas[i]), times[i])) / here
        trial = scaled + (there - here) * slope
        ahead = (
            trial - _denoise(score, schedule, trial * float(alphas[i + 1]), times[i + 1])
        ) / there
        scaled = scaled + 0.5 * (there - here) * (slope + ahead)
    return _denoise(score, schedule, scaled * float(alphas[-1]), times[-1])


def euler_maruyama(
    score: ScoreAt, schedule: Schedule, x: Tensor, times: Tensor, noise: Noise
) -> Tensor:
    """The reverse SDE by Euler-Maruyama in t, as in the paper.

    Equation: x <- x - (f x - g^2 s) dt + g sqrt(dt) z.
    """
    for i in range(len(times) - 1):
        x = _reverse_step(score, schedule, x, times[i], times[i + 1], noise)
    return _denoise(score, schedule, x, times[-1])


def predictor_corrector(
    score: ScoreAt,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    *,
    snr: float = 0.16,
) -> Tensor:
    """One Langevin corrector before each Euler-Maruyama predictor.

    Equation: x <- x + e s + sqrt(2 e) z, e = 2 (snr sigma_t)^2. That is the usual rule, e =
    2 (snr |z| / |s|)^2, at the norm that the score of one noised point has, |s| = |z| / sigma_t:
    the batch's mean norms would tie a sample to its batch mates, and its own norms make the step
    unbounded where its score vanishes.
    """
    for i in range(len(times) - 1):
        e = 2 * (snr * float(schedule.sigma(times[i]))) ** 2
        x = x + e * score(x, _at(times[i], x)) + (2 * e) ** 0.5 * noise()
        x = _reverse_step(score, schedule, x, times[i], times[i + 1], noise)
    return _denoise(score, schedule, x, times[-1])


def _reverse_step(
    score: ScoreAt, schedule: Schedule, x: Tensor, t: Tensor, after: Tensor, noise: Noise
) -> Tensor:
    dt, g2 = float(t - after), float(schedule.diffusion(t))
    move = float(schedule.drift(t)) * x - g2 * score(x, _at(t, x))
    return x - move * dt + (g2 * dt) ** 0.5 * noise()


def rk45(
    score: ScoreAt,
    schedule: Schedule,
    x: Tensor,
    times: Tensor,
    noise: Noise,
    *,
    tolerance: float = 1e-5,
) -> Tensor:
    """The probability-flow ODE by adaptive Dormand-Prince; of `times` only the ends are used.

    Equation: dx/dt = f x - g^2 s / 2.
    """
    del noise

    def field(y: Tensor, t: Tensor) -> Tensor:
        half = 0.5 * like(schedule.diffusion(t), y)
        return like(schedule.drift(t), y) * y - half * score(y, t)

    end = integrate(field, x, float(times[0]), float(times[-1]), tolerance=tolerance)
    return _denoise(score, schedule, end, times[-1])
