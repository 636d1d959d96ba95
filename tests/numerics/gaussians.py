"""Exact scores and flows of Gaussian laws: the oracles of these tests."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sno_dist.diffusion.gaussian_mixture import GaussianMixture
from sno_dist.diffusion.schedule import Schedule, like


@dataclass(frozen=True)
class Mixture:
    """A mixture of isotropic Gaussians, closed under noising."""

    means: Tensor
    deviation: float

    def score(self, schedule: Schedule):
        """s(x, t), exact, differentiable."""

        def at(x: Tensor, t: Tensor) -> Tensor:
            return self._noised(schedule, t).score(x[None])[0]

        return at

    def log_density(self, x: Tensor, schedule: Schedule, t: Tensor) -> Tensor:
        """ln p_t(x)."""
        return self._noised(schedule, t).log_density(x[None])[0]

    def _noised(self, schedule: Schedule, t: Tensor) -> GaussianMixture:
        law = GaussianMixture.isotropic(self.means[None], torch.tensor([self.deviation]))
        return law.noised(schedule.alpha(t)[None], schedule.sigma(t)[None])


class Gaussian:
    """A Gaussian with diagonal covariance: linear score, closed probability flow."""

    def __init__(self, mean: Tensor, variance: Tensor) -> None:
        self.mean, self.variance = mean, variance

    def score(self, schedule: Schedule):
        """s(x, t), exact, differentiable."""

        def at(x: Tensor, t: Tensor) -> Tensor:
            alpha, sigma = like(schedule.alpha(t), x), like(schedule.sigma(t), x)
            return -(x - alpha * self.mean) / (alpha.square() * self.variance + sigma.square())

        return at

    def flow(self, schedule: Schedule, x: Tensor, start: float, end: float) -> Tensor:
        """Where the probability flow takes x from time `start` to `end`."""
        a, b = torch.tensor(start, dtype=x.dtype), torch.tensor(end, dtype=x.dtype)

        def variance(t: Tensor) -> Tensor:
            return schedule.alpha(t).square() * self.variance + schedule.sigma(t).square()

        ratio = (variance(b) / variance(a)).sqrt()
        return schedule.alpha(b) * self.mean + ratio * (x - schedule.alpha(a) * self.mean)
