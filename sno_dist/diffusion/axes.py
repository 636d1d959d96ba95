"""The noising of one axis as a symmetric diffusion whose eigenfunctions are known.

dY = (ln pi)' dtau + sqrt(2) dW has the generator L = d^2 + (ln pi)' d and the stationary law pi,
in which its eigenfunctions, L phi_n = -r_n phi_n, are orthonormal. The mean of phi_n under the
law that rho has become at clock tau is exp(-r_n tau) E_rho phi_n, so means of clean samples tell
every noise level's. A schedule enters by its level sigma / alpha alone: it fixes the clock, and the
factor between y and x / alpha. Several axes multiply (see `eigenfunctions.py`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from scipy.special import binom
from torch import Tensor

__all__ = ["Axis", "Circle", "Interval", "OrnsteinUhlenbeck"]


class Axis(Protocol):
    """One axis; eigenfunction 0 is the constant 1, rates do not decrease with the index."""

    def values(self, y: Tensor, count: int) -> Tensor:
        """Eigenfunctions 0..count - 1 of positions of any shape: (..., count)."""
        ...

    def slopes(self, y: Tensor, count: int) -> Tensor:
        """Their derivatives: (..., count)."""
        ...

    def rates(self, index: Tensor) -> Tensor:
        """r_n >= 0, float64, of indices of any shape."""
        ...

    def last(self, order: int) -> int:
        """The last index of an order: degree, or number of half or whole waves."""
        ...

    def products(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """phi_i phi_j = sum_r c_r phi_(k_r), for pairs (n,) of indices.

        Returns:
            (n, R) int64 k and (n, R) float64 c; what is not needed has c = 0.
        """
        ...

    def log_stationary(self, y: Tensor) -> Tensor:
        """Ln pi at positions of any shape."""
        ...

    def stationary_score(self, y: Tensor) -> Tensor:
        """(ln pi)' at positions of any shape."""
        ...

    def clock(self, level: Tensor) -> Tensor:
        """Tau, 0 at level 0."""
        ...

    def scale(self, level: Tensor) -> Tensor:
        """The factor c in y = c x / alpha."""
        ...


@dataclass(frozen=True, slots=True)
class OrnsteinUhlenbeck:
    """Pi = N(0, 1), the variance preserving noising of standardised data.

    Equation: phi_n = He_n / sqrt(n!), r_n = n, tau = ln(1 + level^2) / 2 and
    c = (1 + level^2)^(-1/2); under variance preserving noise tau = -ln alpha and y = x.
    From degree 20 on sums of products lose their digits to cancellation.
    """

    def values(self, y: Tensor, count: int) -> Tensor:
        """phi_(n + 1) = (y phi_n - sqrt(n) phi_(n - 1)) / sqrt(n + 1)."""
        found = [torch.ones_like(y), y]
        for n in range(1, count - 1):
            found.append((y * found[n] - math.sqrt(n) * found[n - 1]) / math.sqrt(n + 1))
        return torch.stack(found[:count], -1)

    def slopes(self, y: Tensor, count: int) -> Tensor:
        """phi_n' = sqrt(n) phi_(n - 1)."""
        below = torch.nn.functional.pad(self.values(y, max(1, count - 1)), (1, 0))
        return below[..., :count] * torch.arange(count, dtype=y.dtype, device=y.device).sqrt()

    def rates(self, index: Tensor) -> Tensor:
        """N."""
        return index.double()

    def last(self, order: int) -> int:
        """The degree."""
        return order

    def products(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """With k = i + j - 2r, c^2 = C(i, r) C(j, r) C(i + j - 2r, i - r), r = 0..min(i, j)."""
        small = torch.minimum(first, second)
        r = torch.arange(int(small.max()) + 1) if len(small) else torch.zeros(1, dtype=torch.int64)
        i, j, there = first[:, None], second[:, None], r <= small[:, None]
        k = torch.where(there, i + j - 2 * r, 0)
        chosen = _binomial(i, r) * _binomial(j, r) * _binomial(k, (i - r).clamp_min(0))
        return k, torch.where(there, chosen.sqrt(), 0.0)

    def log_stationary(self, y: Tensor) -> Tensor:
        """The standard normal's."""
        return -0.5 * (y.square() + math.log(2 * math.pi))

    def stationary_score(self, y: Tensor) -> Tensor:
        """-y."""
        return -y

    def clock(self, level: Tensor) -> Tensor:
        """ln(1 + level^2) / 2."""
        return 0.5 * torch.log1p(level.square())

    def scale(self, level: Tensor) -> Tensor:
        """(1 + level^2)^(-1/2)."""
        return (1 + level.square()).rsqrt()


class _Brownian:
    """Pi uniform: nothing drifts, the variance exploding noising."""

    __slots__ = ()

    def stationary_score(self, y: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(y)

    def clock(self, level: Tensor) -> Tensor:
        """level^2 / 2."""
        return 0.5 * level.square()

    def scale(self, level: Tensor) -> Tensor:
        """1."""
        return torch.ones_like(level)


@dataclass(frozen=True, slots=True)
class Circle(_Brownian):
    """Brownian motion on a circle, for periodic data.

    Equation: 1, sqrt(2) cos(j w y), sqrt(2) sin(j w y) with w = 2 pi / period, in this order for
    j = 1, 2, ..; r = (j w)^2, tau = level^2 / 2, y = x / alpha. Data that are not periodic need a
    period beyond their range and about six levels: what is told is the law wrapped around.

    Args:
        period: In the data's units.
    """

    period: float

    def values(self, y: Tensor, count: int) -> Tensor:
        """By sines and cosines."""
        angles = self._angles(y, count)
        waves = math.sqrt(2) * torch.stack([angles.cos(), angles.sin()], -1).flatten(-2)
        return torch.cat([torch.ones_like(y)[..., None], waves], -1)[..., :count]

    def slopes(self, y: Tensor, count: int) -> Tensor:
        """By sines and cosines."""
        angles = self._angles(y, count)
        waves = torch.stack([-angles.sin(), angles.cos()], -1) * self._frequencies(y, count)
        flat = math.sqrt(2) * waves.flatten(-2)
        return torch.cat([torch.zeros_like(y)[..., None], flat], -1)[..., :count]

    def rates(self, index: Tensor) -> Tensor:
        """(j w)^2, j = ceil(index / 2)."""
        waves = torch.div(index + 1, 2, rounding_mode="floor").double()
        return (2 * math.pi / self.period * waves) ** 2

    def last(self, order: int) -> int:
        """The sine of `order` whole waves."""
        return 2 * order

    def products(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """A wave of the difference and one of the sum, by the addition theorem."""
        i, j = (torch.div(index + 1, 2, rounding_mode="floor") for index in (first, second))
        odd = (first > 0) & (first % 2 == 0), (second > 0) & (second % 2 == 0)
        mixed = odd[0] ^ odd[1]
        orders = torch.stack([(i - j).abs(), i + j], 1)
        # cos cos: +, +; sin sin: +, -; sin_i cos_j: sign(i - j), +.
        ahead = torch.where(odd[0], i - j, j - i).sign()
        signs = torch.stack([torch.where(mixed, ahead, 1), torch.where(odd[0] & odd[1], -1, 1)], 1)
        waves = torch.where(mixed[:, None], 2 * orders, (2 * orders - 1).clamp_min(0))
        return waves, _two_terms(orders, signs)

    def log_stationary(self, y: Tensor) -> Tensor:
        """-ln period."""
        return torch.full_like(y, -math.log(self.period))

    def _frequencies(self, y: Tensor, count: int) -> Tensor:
        orders = torch.arange(1, count // 2 + 1, dtype=y.dtype, device=y.device)
        return (2 * math.pi / self.period * orders)[:, None]

    def _angles(self, y: Tensor, count: int) -> Tensor:
        return y[..., None] * self._frequencies(y, count).squeeze(-1)


@dataclass(frozen=True, slots=True)
class Interval(_Brownian):
    """Brownian motion on an interval, reflected at its ends.

    Equation: 1, sqrt(2) cos(j w (y - low)) with w = pi / (high - low); r = (j w)^2,
    tau = level^2 / 2, y = x / alpha. The score vanishes at the ends.

    Args:
        low: Lower end, in the data's units.
        high: Upper end.
    """

    low: float
    high: float

    def values(self, y: Tensor, count: int) -> Tensor:
        """By cosines."""
        waves = math.sqrt(2) * ((y - self.low)[..., None] * self._frequencies(y, count)).cos()
        return torch.cat([torch.ones_like(y)[..., None], waves[..., 1:]], -1)

    def slopes(self, y: Tensor, count: int) -> Tensor:
        """By sines."""
        frequencies = self._frequencies(y, count)
        return -math.sqrt(2) * frequencies * ((y - self.low)[..., None] * frequencies).sin()

    def rates(self, index: Tensor) -> Tensor:
        """(j w)^2."""
        return (math.pi / (self.high - self.low) * index.double()) ** 2

    def last(self, order: int) -> int:
        """The number of half waves."""
        return order

    def products(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """A wave of the difference and one of the sum."""
        k = torch.stack([(first - second).abs(), first + second], 1)
        return k, _two_terms(k, torch.ones_like(k))

    def log_stationary(self, y: Tensor) -> Tensor:
        """-ln(high - low)."""
        return torch.full_like(y, -math.log(self.high - self.low))

    def _frequencies(self, y: Tensor, count: int) -> Tensor:
        orders = torch.arange(count, dtype=y.dtype, device=y.device)
        return math.pi / (self.high - self.low) * orders


def _two_terms(orders: Tensor, signs: Tensor) -> Tensor:
    """The factors of the waves of the difference and the sum, (n, 2) orders and signs.

    The constant is 1 while cos(0 y) has the factor sqrt(2), and the product with the constant is
    one wave.
    """
    factors = torch.where(orders == 0, 1.0, orders.new_tensor(0.5, dtype=torch.float64).sqrt())
    single = orders[:, :1] == orders[:, 1:]
    alone = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return torch.where(single, alone, signs * factors)


def _binomial(n: Tensor, k: Tensor) -> Tensor:
    return torch.from_numpy(binom(n.numpy(), k.numpy()))
