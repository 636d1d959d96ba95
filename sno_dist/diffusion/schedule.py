"""Noise schedules: one pair (alpha_t, sigma_t) determines the SDE.

x_t = alpha_t x_0 + sigma_t eps, and dx = f_t x dt + g_t dw with f = alpha'/alpha and
g^2 = (sigma^2)' - 2 f sigma^2. Time grows with noise, t in [0, 1]. In the frame x / alpha every
schedule is variance exploding with level sigma / alpha, here called the *level*.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = [
    "Schedule",
    "SubVariancePreserving",
    "VarianceExploding",
    "VariancePreserving",
    "level",
    "like",
]


class Schedule(Protocol):
    """A schedule; every method maps times of any shape to values of that shape and dtype."""

    def alpha(self, t: Tensor) -> Tensor:
        """The signal's factor alpha_t."""
        ...

    def sigma(self, t: Tensor) -> Tensor:
        """The noise's standard deviation sigma_t."""
        ...

    def drift(self, t: Tensor) -> Tensor:
        """f_t in dx = f_t x dt + g_t dw."""
        ...

    def diffusion(self, t: Tensor) -> Tensor:
        """g_t**2."""
        ...

    def time(self, level: Tensor) -> Tensor:
        """The t at which sigma_t / alpha_t is `level` (> 0)."""
        ...


def level(schedule: Schedule, t: Tensor) -> Tensor:
    """sigma_t / alpha_t, the noise in the data's own units."""
    return schedule.sigma(t) / schedule.alpha(t)


def like(values: Tensor, x: Tensor) -> Tensor:
    """Reshape per-sample values (N,) so that they broadcast against x (N, ...)."""
    return values.reshape(-1, *[1] * (x.dim() - 1))


@dataclass(frozen=True, slots=True)
class VarianceExploding:
    """g_t = base**t and no drift: sigma_t^2 = (base**(2t) - 1) / (2 ln base)."""

    base: float = 25.0

    def alpha(self, t: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(t)

    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation, 0 at t = 0."""
        rate = 2 * math.log(self.base)
        return (torch.expm1(rate * t) / rate).sqrt()

    def drift(self, t: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(t)

    def diffusion(self, t: Tensor) -> Tensor:
        """base**(2t)."""
        return torch.exp(2 * math.log(self.base) * t)

    def time(self, level: Tensor) -> Tensor:
        """Inverse of sigma."""
        rate = 2 * math.log(self.base)
        return torch.log1p(rate * level.square()) / rate


@dataclass(frozen=True, slots=True)
class LinearBeta:
    """beta_t = low + (high - low) t and its integral B(t), with alpha = exp(-B / 2)."""

    low: float = 0.1
    high: float = 20.0

    def beta(self, t: Tensor) -> Tensor:
        """The rate beta_t."""
        return self.low + (self.high - self.low) * t

    def integral(self, t: Tensor) -> Tensor:
        """B(t) = low t + (high - low) t^2 / 2."""
        return (self.low + 0.5 * (self.high - self.low) * t) * t

    def alpha(self, t: Tensor) -> Tensor:
        """exp(-B(t) / 2)."""
        return torch.exp(-0.5 * self.integral(t))

    def drift(self, t: Tensor) -> Tensor:
        """-beta_t / 2."""
        return -0.5 * self.beta(t)

    def inverse(self, integral: Tensor) -> Tensor:
        """The t with B(t) = `integral`, in a form that does not cancel near 0."""
        slope = self.high - self.low
        return 2 * integral / (self.low + (self.low**2 + 2 * slope * integral).sqrt())


@dataclass(frozen=True, slots=True)
class VariancePreserving(LinearBeta):
    """sigma_t^2 = 1 - exp(-B(t))."""

    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation, 0 at t = 0."""
        return (-torch.expm1(-self.integral(t))).sqrt()

    def diffusion(self, t: Tensor) -> Tensor:
        """beta_t."""
        return self.beta(t)

    def time(self, level: Tensor) -> Tensor:
        """B = ln(1 + level^2)."""
        return self.inverse(torch.log1p(level.square()))


@dataclass(frozen=True, slots=True)
class SubVariancePreserving(LinearBeta):
    """sigma_t = 1 - exp(-B(t)): less noise than variance preserving at every t."""

    def sigma(self, t: Tensor) -> Tensor:
        """Standard deviation, 0 at t = 0."""
        return -torch.expm1(-self.integral(t))

    def diffusion(self, t: Tensor) -> Tensor:
        """beta_t (1 - exp(-2 B(t)))."""
        return -self.beta(t) * torch.expm1(-2 * self.integral(t))

    def time(self, level: Tensor) -> Tensor:
        """Level = 2 sinh(B / 2), so B = 2 asinh(level / 2)."""
        return self.inverse(2 * torch.asinh(0.5 * level))
