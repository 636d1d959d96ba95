"""A user's own function as a map: derivatives by torch.func, the inverse by Newton's method."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.func import grad, jacfwd, jvp, vjp, vmap

from sno_dist.diffusion.maps.map import Map
from sno_dist.errors import RunError

__all__ = ["Automatic", "Point"]

Point = Callable[[Tensor], Tensor]
"""One point, (d,), to one point, (d,), in operations that torch.func can transform."""

ROUNDINGS = 64
"""How many units of rounding an inverse may be wrong by, relative to 1 + |y| or 1 + |x|."""

HALVINGS = 30
"""After so many a Newton step is given up."""


class Automatic(Map):
    """phi as it is given for one point. Its derivatives cost d evaluations, its inverse steps.

    Args:
        function: phi of one point.
        inverse: phi^-1 of one point; none: Newton's method with backtracking.
        guess: Where Newton's method begins, (N, d) values y to (N, d); none: at y itself.
        contains: Whether y is in the image, (N, d) to (N,) booleans; none: everything is.
        limit: Newton steps at most.
    """

    def __init__(
        self,
        function: Point,
        inverse: Point | None = None,
        *,
        guess: Callable[[Tensor], Tensor] | None = None,
        contains: Callable[[Tensor], Tensor] | None = None,
        limit: int = 50,
    ) -> None:
        self.function = function
        self.inverse_function = inverse
        self.guess = guess or torch.clone
        self.image = contains or super().contains
        self.limit = limit

    def forward(self, x: Tensor) -> Tensor:
        """The function of each row."""
        return vmap(self.function)(x)

    def inverse(self, y: Tensor) -> Tensor:
        """The inverse of each row; Newton's method carries no gradient.

        Raises:
            RunError: If Newton's method did not find every x.
        """
        if self.inverse_function is not None:
            return vmap(self.inverse_function)(y)
        with torch.no_grad():
            return self._newton(y)

    def contains(self, y: Tensor) -> Tensor:
        """Whether y is in the image, as far as was told."""
        return self.image(y)

    def jacobian(self, x: Tensor) -> Tensor:
        """J at each row: (N, d, d)."""
        return vmap(self._jacobian)(x)

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """J v, in forward mode."""
        return vmap(self._along)(x, v)

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """J' v, in reverse mode."""
        return vmap(lambda point, own: vjp(self.function, point)[1](own)[0])(x, v)

    def inverse_jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """J^-1 v, by a linear solve."""
        return torch.linalg.solve(self.jacobian(x), v)

    def inverse_vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """J^-T v, by a linear solve."""
        return torch.linalg.solve(self.jacobian(x).mT, v)

    def log_det(self, x: Tensor) -> Tensor:
        """Ln |det J|."""
        return vmap(self._log_det)(x)

    def log_det_gradient(self, x: Tensor) -> Tensor:
        """Its gradient, in reverse mode over forward mode."""
        return vmap(grad(self._log_det))(x)

    def curvature(self, x: Tensor, v: Tensor) -> Tensor:
        """The second derivative of phi(x + e v_r) in e at 0, summed over r."""

        def second(point: Tensor, along: Tensor) -> Tensor:
            return jvp(lambda p: self._along(p, along), (point,), (along,))[1].to(point)

        return vmap(lambda point, rows: vmap(second, (None, 0))(point, rows).sum(0))(x, v)

    def _along(self, point: Tensor, v: Tensor) -> Tensor:
        # torch's forward mode makes float64 of a float32 scalar times a Python number.
        return jvp(self.function, (point,), (v,))[1].to(point)

    def _jacobian(self, point: Tensor) -> Tensor:
        return jacfwd(self.function)(point).to(point)

    def _log_det(self, point: Tensor) -> Tensor:
        return torch.linalg.slogdet(self._jacobian(point)).logabsdet

    def _newton(self, y: Tensor) -> Tensor:
        x = self.guess(y)
        for _ in range(self.limit):
            gap, step = self._gap(x, y)
            left = ~_met(x, y, gap, step)
            if not bool(left.any()):
                return x
            x = self._backtrack(x, torch.where(left[:, None], step, 0.0), gap, y)
        return self._found(x, y)

    def _gap(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """phi(x) - y, and Newton's step J^-1 (phi(x) - y)."""
        gap = self.forward(x) - y
        return gap, torch.linalg.solve_ex(self.jacobian(x), gap).result

    def _backtrack(self, x: Tensor, step: Tensor, gap: Tensor, y: Tensor) -> Tensor:
        """One step: the longest of step, step / 2, step / 4, ... that brings phi(x) nearer to y."""
        before = gap.norm(dim=1)
        for _ in range(HALVINGS):
            nearer = (self.forward(x - step) - y).norm(dim=1) <= before
            if bool(nearer.all()):
                break
            step = torch.where(nearer[:, None], step, 0.5 * step)
        return x - step

    def _found(self, x: Tensor, y: Tensor) -> Tensor:
        """The same x, if phi(x) is y in every row."""
        gap, step = self._gap(x, y)
        missed = ~_met(x, y, gap, step)
        if bool(missed.any()):
            first = int(missed.nonzero()[0])
            raise RunError(
                "the map could not be inverted",
                got=f"{int(missed.sum())} of {len(y)} points missed, at y = "
                f"{y[first].tolist()[:4]} by {gap[first].tolist()[:4]}",
                expected="phi(x) = y up to rounding",
                fix="check that y is in the map's image; give the inverse, or a guess close to it",
            )
        return x


def _met(x: Tensor, y: Tensor, gap: Tensor, step: Tensor) -> Tensor:
    """Whether y is met, or x is right, up to rounding: either may be out of reach."""
    unit = ROUNDINGS * torch.finfo(y.dtype).eps
    y_met = gap.abs().amax(1) <= unit * (1 + y.abs().amax(1))
    x_right = step.abs().amax(1) <= unit * (1 + x.abs().amax(1))
    return x.isfinite().all(1) & (y_met | x_right)
