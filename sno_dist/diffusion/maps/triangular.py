"""Triangular maps: entry i of y depends on the first i entries of x, and increases in the i-th."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sno_dist.diffusion.maps.automatic import Automatic, Point

__all__ = ["Triangular"]

DOUBLINGS = 20
"""Entries of x are sought up to 2**20."""


class Triangular(Automatic):
    """phi_i(x_1, ..., x_i), increasing in x_i: Knothe-Rosenblatt maps, stick breaking.

    Derivatives are those of any function; the inverse needs no guess, because it is found entry by
    entry between bounds, and is met wherever y is in the image.

    Args:
        function: phi of one point.
        contains: Whether y is in the image, (N, d) to (N,) booleans; none: everything is.
    """

    def __init__(
        self, function: Point, *, contains: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        super().__init__(function, contains=contains)

    def inverse(self, y: Tensor) -> Tensor:
        """The inverse of each row, by bisection; carries no gradient.

        Raises:
            RunError: If y is not in the image, or the map is not triangular and increasing.

        Cost: some 120 evaluations of phi for each of the d entries.
        """
        with torch.no_grad():
            x = torch.zeros_like(y)
            for entry in range(y.shape[1]):
                x = self._solve(x, y, entry)
            return self._found(x, y)

    def _solve(self, x: Tensor, y: Tensor, entry: int) -> Tensor:
        """The same x with that entry found; those before it are known, those after it idle."""

        def placed(values: Tensor) -> Tensor:
            return torch.cat([x[:, :entry], values[:, None], x[:, entry + 1 :]], 1)

        def below(values: Tensor) -> Tensor:
            return self.forward(placed(values))[:, entry] < y[:, entry]

        high = torch.ones_like(y[:, 0])
        low = -high
        for _ in range(DOUBLINGS):
            high = torch.where(below(high), 2 * high, high)
            low = torch.where(below(low), low, 2 * low)
        for _ in range(DOUBLINGS + torch.finfo(y.dtype).bits):
            middle = 0.5 * (low + high)
            under = below(middle)
            low, high = torch.where(under, middle, low), torch.where(under, high, middle)
        return placed(0.5 * (low + high))
