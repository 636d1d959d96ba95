"""Maps that treat each entry alone: y_i = f(x_i) with f increasing."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from sno_dist.diffusion.maps.map import Map
from sno_dist.errors import DataError

__all__ = ["Elementwise", "box", "exponential", "logarithm"]

Function = Callable[[Tensor], Tensor]
"""Of each entry of a tensor alone."""


class Elementwise(Map):
    """y_i = f(x_i), given f and its inverse; the derivatives that are not given are computed.

    Args:
        function: f, increasing.
        inverse: f^-1.
        log_slope: ln f'. Give it where f' may underflow or overflow.
        bend: f'' / f', the derivative of ln f'.
        low: Where the image of f begins, a number or (d,).
        high: Where it ends.
    """

    def __init__(
        self,
        function: Function,
        inverse: Function,
        *,
        log_slope: Function | None = None,
        bend: Function | None = None,
        low: float | Tensor = -math.inf,
        high: float | Tensor = math.inf,
    ) -> None:
        self.function = function
        self._inverse = inverse
        self.log_slope = log_slope or (lambda x: _slope(function)(x).log())
        self.bend = bend or _slope(self.log_slope)
        self.low, self.high = low, high

    def forward(self, x: Tensor) -> Tensor:
        """The function of each entry."""
        return self.function(x)

    def inverse(self, y: Tensor) -> Tensor:
        """Its inverse, of each entry."""
        return self._inverse(y)

    def contains(self, y: Tensor) -> Tensor:
        """Whether every entry is between the ends of the image, which do not belong to it."""
        low, high = torch.as_tensor(self.low).to(y), torch.as_tensor(self.high).to(y)
        return ((y > low) & (y < high)).all(1)

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """Equation: f' v."""
        return self.log_slope(x).exp() * v

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """Equation: f' v."""
        return self.jvp(x, v)

    def inverse_jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """Equation: v / f'."""
        return (-self.log_slope(x)).exp() * v

    def inverse_vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """Equation: v / f'."""
        return self.inverse_jvp(x, v)

    def log_det(self, x: Tensor) -> Tensor:
        """The sum of ln f'."""
        return self.log_slope(x).sum(1)

    def log_det_gradient(self, x: Tensor) -> Tensor:
        """Equation: f'' / f'."""
        return self.bend(x)

    def curvature(self, x: Tensor, v: Tensor) -> Tensor:
        """Equation: f'' sum_r v_r^2."""
        return self._second(x) * v.square().sum(1)

    def laplacian(self, x: Tensor) -> Tensor:
        """Equation: f''."""
        return self._second(x)

    def _second(self, x: Tensor) -> Tensor:
        return self.bend(x) * self.log_slope(x).exp()


def exponential() -> Elementwise:
    """Exponentials y = exp(x): from all numbers to those above 0."""
    return Elementwise(torch.exp, torch.log, log_slope=lambda x: x, bend=torch.ones_like, low=0.0)


def logarithm() -> Elementwise:
    """Logarithms y = ln x: from numbers above 0 to all."""
    return Elementwise(
        torch.log, torch.exp, log_slope=lambda x: -x.log(), bend=lambda x: -x.reciprocal()
    )


def box(low: float | Tensor, high: float | Tensor) -> Elementwise:
    """Onto an open box: y = low + (high - low) / (1 + exp(-x)), whose inverse is the logit.

    Args:
        low: The lower corner, a number or (d,).
        high: The upper corner, above it in every entry.

    Raises:
        DataError: If it is not.
    """
    corners = torch.as_tensor(low).double(), torch.as_tensor(high).double()
    width = corners[1] - corners[0]
    if not bool((width > 0).all()):
        raise DataError(
            "a box's upper corner is above the lower one in every entry",
            got=f"low {corners[0].tolist()}, high {corners[1].tolist()}",
        )

    def function(x: Tensor) -> Tensor:
        return corners[0].to(x) + width.to(x) * x.sigmoid()

    def inverse(y: Tensor) -> Tensor:
        # Each end's distance by itself: 1 - share would lose the digits near the upper end.
        return (y - corners[0].to(y)).log() - (corners[1].to(y) - y).log()

    return Elementwise(
        function,
        inverse,
        log_slope=lambda x: width.log().to(x) + logsigmoid(x) + logsigmoid(-x),
        bend=lambda x: -(0.5 * x).tanh(),
        low=low,
        high=high,
    )


def _slope(function: Function) -> Function:
    """The derivative of a function of each entry alone."""

    def slope(x: Tensor) -> Tensor:
        return torch.func.jvp(function, (x,), (torch.ones_like(x),))[1]

    return slope
