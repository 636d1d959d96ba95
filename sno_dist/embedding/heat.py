"""The heat kernel of a noising, whose features are the noising's own eigenfunctions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from sno_dist.diffusion.axes import Axis
from sno_dist.diffusion.eigenfunctions import Eigenfunctions, up_to
from sno_dist.embedding.feature_map import FeatureMap
from sno_dist.embedding.features import Sums
from sno_dist.embedding.kernels import Kernel

__all__ = ["EigenFeatures", "HeatKernel"]


@dataclass(frozen=True)
class HeatKernel(Kernel):
    """Two distributions compared after both were noised to the clock `heat`.

    Equation: k(x, y) = sum_n exp(-2 r_n heat) phi_n(x) phi_n(y) (see `diffusion/axes.py`), so that
    <mu_P, mu_Q> = <p, q> - 1 in L2(1 / pi) of the noised densities; on a circle that is the
    Gaussian kernel of bandwidth 2 sqrt(heat), wrapped around, less a constant.

    Args:
        axis: The noising of every axis.
        order: Degree, or number of waves, at most.
        active: At most so many axes in one eigenfunction; none: all.
        heat: The clock; 0 takes all eigenfunctions alike.
    """

    axis: Axis
    order: int
    active: int | None
    heat: float

    def basis(self, dims: int) -> Eigenfunctions:
        """The eigenfunctions in so many dimensions.

        Raises:
            ConfigError: If there are more than can be afforded.
        """
        return _basis(self.axis, dims, self.order, self.active)

    def damping(self, dims: int) -> Tensor:
        """exp(-r_n heat), (K,)."""
        return (-self.heat * self.basis(dims).rates).exp()

    def left(self, rows: Tensor) -> Tensor:
        """Damped eigenfunctions, (n, K)."""
        dims = rows.shape[1]
        return self.basis(dims)(rows) * self.damping(dims).to(rows)

    def right(self, rows: Tensor) -> Tensor:
        """The same."""
        return self.left(rows)

    def values(self, left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
        """(n, m) from the two forms."""
        return torch.mm(left, right.T, out=out)

    def diagonal(self, rows: Tensor) -> Tensor:
        """The squared length of each row's features."""
        return self.left(rows).square().sum(1)


class EigenFeatures(FeatureMap):
    """The eigenfunctions themselves; the damping waits until after the averaging.

    Their means are what operator-informed score matching fits a score to (`score/oism.py`), so
    that one pass over the samples serves both.

    Args:
        kernel: The kernel.
        dims: () D.
    """

    dims: Tensor

    def __init__(self, kernel: HeatKernel, dims: Tensor) -> None:
        super().__init__()
        self.kernel = kernel
        self._basis = kernel.basis(int(dims))
        self._damping = kernel.damping(int(dims))
        self.register_buffer("dims", dims.clone())

    @property
    def size(self) -> int:
        """K."""
        return len(self._damping)

    def forward(self, x: Tensor) -> Tensor:
        """(n, D) to (n, K)."""
        return self._basis(x)

    def sums(self, x: Tensor, lengths: Tensor) -> Sums:
        """Without a row for every sample."""
        found = self._basis.moments(x, lengths)
        return Sums(total=found.total, count=found.count.to(found.total))

    def weigh(self, mean: Tensor) -> Tensor:
        """The damping."""
        return mean * self._damping.to(mean)


@cache
def _basis(axis: Axis, dims: int, order: int, active: int | None) -> Eigenfunctions:
    return up_to(axis, dims, order, active=active, where="embedding.kernel.order")
