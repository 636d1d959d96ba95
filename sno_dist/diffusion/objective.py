"""The denoising objective E w(t) |sigma_t s(x_t, t) + eps|^2: where t falls and what w is."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from sno_dist.diffusion.schedule import Schedule, level

__all__ = ["EPSILON", "TimeLaw", "Weight", "posterior_noise", "times", "weights"]

EPSILON = 1e-5
"""The smallest time that training and likelihood see; below it 1 / sigma loses its digits."""

TimeLaw = Literal["uniform", "lognormal"]
Weight = Literal["noise", "edm", "likelihood"]


def times(
    uniform: Tensor, schedule: Schedule, law: TimeLaw, log_mean: float, log_std: float
) -> Tensor:
    """Turn uniforms on [0, 1) into diffusion times.

    Equation: uniform, t = EPSILON + (1 - EPSILON) r; lognormal, ln(sigma_t / alpha_t) is
    N(log_mean, log_std^2), cut off at the schedule's ends.

    Args:
        uniform: Any shape, float32.
        schedule: The SDE.
        law: Which of the two.
        log_mean: Mean of the log level.
        log_std: Standard deviation of the log level.
    """
    match law:
        case "uniform":
            return EPSILON + (1 - EPSILON) * uniform
        case "lognormal":
            # A uniform of exactly 0 is -inf in the normal quantile; the clamp below ends it.
            levels = torch.exp(log_mean + log_std * torch.special.ndtri(uniform))
            return schedule.time(levels.clamp(max=1e4)).clamp(EPSILON, 1.0)


def weights(t: Tensor, schedule: Schedule, weight: Weight) -> Tensor:
    """w(t) in E w |sigma s + eps|^2.

    Equation: noise, 1 (the paper's lambda = sigma^2); edm, 1 + (sigma / alpha)^2, a unit target
    for the preconditioned network on standardised data; likelihood, g^2 / sigma^2.
    """
    match weight:
        case "noise":
            return torch.ones_like(t)
        case "edm":
            # Beyond level 10^2 the sample is noise alone; the bound keeps the weight finite.
            return 1 + level(schedule, t).clamp(max=1e2).square()
        case "likelihood":
            return schedule.diffusion(t) / schedule.sigma(t).square()


def posterior_noise(noised: Tensor, t: Tensor, schedule: Schedule, sources: Tensor) -> Tensor:
    """The mean noise of a noised sample, given all the samples that it may have come from.

    Equation: E[eps | x_t, x^1..x^n] = (x_t - alpha sum_j w_j x^j) / sigma, w = softmax_j(
    -|x_t - alpha x^j|^2 / 2 sigma^2). If x_t came from one of n independent samples of a law,
    each as likely, this has the same mean given x_t as the noise itself and less variance (Rao,
    Blackwell): a training target of the same minimiser.

    Args:
        noised: (P, B, Z) x_t of P laws.
        t: (P, B).
        schedule: The SDE.
        sources: (P, n, Z); each law's, those that were noised among them.

    Returns:
        (P, B, Z).
    """
    alpha, sigma = schedule.alpha(t)[..., None], schedule.sigma(t)[..., None]
    # Not by the expansion of the square, which loses its digits at small sigma.
    gaps = torch.cdist(noised / alpha, sources, compute_mode="donot_use_mm_for_euclid_dist")
    shares = (-0.5 * (gaps * alpha / sigma).square()).softmax(-1)
    return (noised - alpha * (shares @ sources)) / sigma
