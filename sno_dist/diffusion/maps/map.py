"""What a smooth invertible map is, and one map after another."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Composition", "Map"]


class Map(ABC):
    """Interface: y = phi(x), one to one and twice differentiable, J = d phi / d x.

    Points are rows, (N, d) of any float type. Derivatives are taken at x, also those of the
    inverse: at a y near the edge of the image the digits that x still has are lost.
    """

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Images y = phi(x): (N, d)."""

    @abstractmethod
    def inverse(self, y: Tensor) -> Tensor:
        """Points x of given images y: (N, d); not numbers where y is outside the image."""

    def contains(self, y: Tensor) -> Tensor:
        """Whether y is in the image: (N,) booleans."""
        return y.isfinite().all(1)

    @abstractmethod
    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """J v, how vectors are carried from x to y: (N, d)."""

    @abstractmethod
    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """J' v, how gradients are carried from y to x: (N, d)."""

    @abstractmethod
    def inverse_jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """J^-1 v, how vectors are carried from y to x: (N, d)."""

    @abstractmethod
    def inverse_vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """J^-T v, how gradients are carried from x to y: (N, d)."""

    @abstractmethod
    def log_det(self, x: Tensor) -> Tensor:
        """Ln |det J|: (N,)."""

    @abstractmethod
    def log_det_gradient(self, x: Tensor) -> Tensor:
        """The gradient of ln |det J| in x, entries tr(J^-1 d_i J): (N, d)."""

    @abstractmethod
    def curvature(self, x: Tensor, v: Tensor) -> Tensor:
        """The sum over r of phi's second derivative along v_r.

        Equation: sum_r D^2 phi_k[v_r, v_r] = <G G', Hess phi_k> if the v_r are the columns of G.

        Args:
            x: (N, d).
            v: (N, R, d).

        Returns:
            (N, d).
        """

    def laplacian(self, x: Tensor) -> Tensor:
        """Entries sum_i d_i d_i phi_k: (N, d).

        Cost: d second derivatives, and N d^2 numbers, where a map has no formula of its own.
        """
        basis = torch.eye(x.shape[1]).to(x)
        return self.curvature(x, basis.expand(len(x), -1, -1))


class Composition(Map):
    """One map after another: phi = m_n o ... o m_1.

    Args:
        maps: m_1 to m_n, in the order in which `forward` applies them.
    """

    def __init__(self, *maps: Map) -> None:
        self.maps = maps

    def forward(self, x: Tensor) -> Tensor:
        """One after another."""
        for own in self.maps:
            x = own.forward(x)
        return x

    def inverse(self, y: Tensor) -> Tensor:
        """The inverses, last map first."""
        for own in reversed(self.maps):
            y = own.inverse(y)
        return y

    def contains(self, y: Tensor) -> Tensor:
        """Whether y is in the last map's image, what it comes from in the image before, and on."""
        inside = torch.zeros_like(y[:, 0], dtype=torch.bool)
        left = torch.arange(len(y), device=y.device)
        for own in reversed(self.maps):
            held = own.contains(y)
            left, y = left[held], y[held]
            if len(left) == 0:
                break
            # Only of these is there an inverse to look for.
            y = own.inverse(y)
        return inside.index_fill(0, left, True)

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """J_n ... J_1 v."""
        for own, point in self._points(x):
            v = own.jvp(point, v)
        return v

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """J_1' ... J_n' v."""
        for own, point in reversed(self._points(x)):
            v = own.vjp(point, v)
        return v

    def inverse_jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """J_1^-1 ... J_n^-1 v."""
        for own, point in reversed(self._points(x)):
            v = own.inverse_jvp(point, v)
        return v

    def inverse_vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """J_n^-T ... J_1^-T v."""
        for own, point in self._points(x):
            v = own.inverse_vjp(point, v)
        return v

    def log_det(self, x: Tensor) -> Tensor:
        """The sum of those of the maps, each where it is applied."""
        total = torch.zeros_like(x[:, 0])
        for own, point in self._points(x):
            total = total + own.log_det(point)
        return total

    def log_det_gradient(self, x: Tensor) -> Tensor:
        """By the chain rule, from the last map's back."""
        total = torch.zeros_like(x)
        for own, point in reversed(self._points(x)):
            total = own.log_det_gradient(point) + own.vjp(point, total)
        return total

    def curvature(self, x: Tensor, v: Tensor) -> Tensor:
        """D^2(b o a)[v, v] = D^2 b[J_a v, J_a v] + J_b D^2 a[v, v]."""
        total = torch.zeros_like(x)
        for own, point in self._points(x):
            total = own.curvature(point, v) + own.jvp(point, total)
            v = _along(own.jvp, point, v)
        return total

    def _points(self, x: Tensor) -> list[tuple[Map, Tensor]]:
        """Every map, and where it is applied."""
        found = []
        for own in self.maps:
            found.append((own, x))
            x = own.forward(x)
        return found


def _along(product: Callable[[Tensor, Tensor], Tensor], x: Tensor, v: Tensor) -> Tensor:
    """A product of (N, d) vectors, of (N, R, d) ones."""
    rows = x[:, None].expand_as(v).flatten(0, 1)
    return product(rows, v.flatten(0, 1)).view_as(v)
