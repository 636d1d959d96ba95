"""Positive definite kernels between samples, in float64.

Everything that compares distributions by a kernel (the kernel mean embedding, the maximum mean
discrepancy) goes through this module, so that all of them mean the same kernel.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = [
    "Gaussian",
    "Kernel",
    "Laplace",
    "Matern",
    "Polynomial",
    "Radial",
    "RationalQuadratic",
    "Samples",
    "WeightedSum",
    "as_matrix",
    "by_openblas",
]

OPENBLAS_FROM = 256
"""Entries of a row from which NumPy's OpenBLAS is ahead of torch's MKL, in float64 on a CPU."""

Samples = Tensor | NDArray[np.generic]
"""Samples as rows, (n, ...) of any real type; axes beyond the first are flattened."""


class Kernel(ABC):
    """Interface: a kernel as a function of a left and a right form of the samples.

    The forms are made once and used in many blocks: what a block costs is then one matrix
    product and a pass or two over its values.
    """

    def align(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The rows moved to where rounding hurts least; the kernel of the two is unchanged."""
        return x, y

    def left(self, rows: Tensor) -> Any:
        """The form that `values` takes first, of (n, D) float64 rows."""
        return rows

    def right(self, rows: Tensor) -> Any:
        """The form that `values` takes second, of (m, D) float64 rows."""
        return rows

    @abstractmethod
    def values(self, left: Any, right: Any, out: Tensor | None = None) -> Tensor:
        """The kernel of all pairs: (n, m) float64, in `out` where that spares fresh memory."""

    @abstractmethod
    def diagonal(self, rows: Tensor) -> Tensor:
        """The kernel of each of the (n, D) rows with itself: (n,)."""

    def __call__(self, x: Samples, y: Samples) -> Tensor:
        """The kernel of all pairs of samples: (n, m) float64, on the device of `x`."""
        a, b = self.align(as_matrix(x), as_matrix(y))
        return self.values(self.left(a), self.right(b))


@dataclass(frozen=True)
class Scaled(Kernel):
    """A kernel of the distance in bandwidths, with k(x, x) = 1.

    Args:
        bandwidth: Length scale in the units of the samples, finite and above 0.
    """

    bandwidth: float

    def __post_init__(self) -> None:
        """Refuse a length scale that is none.

        Raises:
            ValueError: If the bandwidth is not a finite positive number.
        """
        if not (self.bandwidth > 0 and math.isfinite(self.bandwidth)):
            raise ValueError(f"the bandwidth must be finite and above 0, got {self.bandwidth}")

    def diagonal(self, rows: Tensor) -> Tensor:
        """Ones."""
        return rows.new_ones(len(rows))


@dataclass(frozen=True)
class Radial(Scaled):
    """A kernel k(x, y) = profile(slope |x - y|^2 / bandwidth^2)."""

    @property
    @abstractmethod
    def slope(self) -> float:
        """What |x - y|^2 / bandwidth^2 is multiplied by before the profile."""

    @abstractmethod
    def profile(self, scaled: Tensor) -> Tensor:
        """The kernel of the scaled squared distances, computed in place."""

    @abstractmethod
    def scales(self, generator: np.random.Generator, count: int) -> NDArray[np.float64]:
        """Random s, (count,), such that s g with g ~ N(0, I) follows the spectral law."""

    def align(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Both sets shifted by their common mean: |x|^2 + |y|^2 - 2xy cancels far from 0."""
        centre = (x.sum(0) + y.sum(0)) / (len(x) + len(y))
        return x - centre, y - centre

    def left(self, rows: Tensor) -> Tensor:
        """[x, |x|^2, 1], in bandwidths: (n, D + 2)."""
        form, squares = self._scaled(rows)
        form[:, -2], form[:, -1] = squares, 1
        return form

    def right(self, rows: Tensor) -> Tensor:
        """Slope [-2y, 1, |y|^2], in bandwidths, so that one product gives scaled squares."""
        form, squares = self._scaled(rows)
        form[:, :-2] *= -2 * self.slope
        form[:, -2], form[:, -1] = self.slope, self.slope * squares
        return form

    def _scaled(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The rows in bandwidths with room for two columns, and their squared norms."""
        form = rows.new_empty(len(rows), rows.shape[1] + 2)
        scaled = torch.div(rows, self.bandwidth, out=form[:, :-2])
        return form, torch.linalg.vecdot(scaled, scaled)

    def values(self, left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
        """(n, m) from the two forms."""
        return self.profile(_products(left, right, out))


class Gaussian(Radial):
    """Equation: exp(-|x - y|^2 / (2 bandwidth^2))."""

    slope: ClassVar[float] = -0.5

    def profile(self, scaled: Tensor) -> Tensor:
        """The exponential."""
        return scaled.exp_()

    def scales(self, generator: np.random.Generator, count: int) -> NDArray[np.float64]:
        """1 / bandwidth."""
        del generator
        return np.full(count, 1 / self.bandwidth)


@dataclass(frozen=True)
class Matern(Radial):
    """Equation: a polynomial in z times exp(-z), z = sqrt(2 nu) |x - y| / bandwidth.

    Args:
        order: Degree of the polynomial, nu - 1/2.
    """

    order: Literal[0, 1, 2] = 1

    @property
    def slope(self) -> float:
        """2 nu."""
        return 2 * self.order + 1

    def profile(self, scaled: Tensor) -> Tensor:
        """The polynomial times the exponential."""
        z = scaled.clamp_(min=0).sqrt_()
        match self.order:
            case 0:
                return z.neg_().exp_()
            case 1:
                return (1 + z).mul_(z.neg_().exp_())
            case 2:
                return (z * z).div_(3).add_(z).add_(1).mul_(z.neg_().exp_())

    def scales(self, generator: np.random.Generator, count: int) -> NDArray[np.float64]:
        """A multivariate t law of 2 nu degrees: sqrt(2 nu / chi^2) / bandwidth."""
        return np.sqrt(self.slope / generator.chisquare(self.slope, count)) / self.bandwidth


@dataclass(frozen=True)
class RationalQuadratic(Radial):
    """Equation: (1 + |x - y|^2 / (2 alpha bandwidth^2))^-alpha.

    Args:
        alpha: How the length scales are mixed; infinitely large is the Gaussian.
    """

    alpha: float = 1.0

    @property
    def slope(self) -> float:
        """1 / (2 alpha)."""
        return 0.5 / self.alpha

    def profile(self, scaled: Tensor) -> Tensor:
        """The power."""
        return scaled.add_(1).pow_(-self.alpha)

    def scales(self, generator: np.random.Generator, count: int) -> NDArray[np.float64]:
        """A gamma mixture of Gaussians: sqrt(g / alpha) / bandwidth, g ~ Gamma(alpha)."""
        return np.sqrt(generator.gamma(self.alpha, size=count) / self.alpha) / self.bandwidth


class Laplace(Scaled):
    """Equation: exp(-|x - y|_1 / bandwidth)."""

    def values(self, left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
        """(n, m) from the rows themselves."""
        del out
        return torch.cdist(left, right, p=1).mul_(-1 / self.bandwidth).exp_()


@dataclass(frozen=True)
class Polynomial(Kernel):
    """Equation: (x'y / D + constant)^degree, D the samples' entries.

    Args:
        degree: At least 1; the embedding then holds all moments up to it.
        constant: At least 0.
    """

    degree: int = 2
    constant: float = 1.0

    def values(self, left: Tensor, right: Tensor, out: Tensor | None = None) -> Tensor:
        """(n, m) from the rows themselves."""
        products = _products(left, right, out)
        return products.div_(left.shape[1]).add_(self.constant).pow_(self.degree)

    def diagonal(self, rows: Tensor) -> Tensor:
        """(|x|^2 / D + constant)^degree."""
        return (rows.square().mean(1) + self.constant).pow(self.degree)


@dataclass(frozen=True)
class WeightedSum(Kernel):
    """Equation: sum_k weight_k kernel_k.

    Args:
        terms: The kernels.
        weights: As many positive numbers.
    """

    terms: tuple[Kernel, ...]
    weights: tuple[float, ...]

    def left(self, rows: Tensor) -> list[Any]:
        """Every term's."""
        return [term.left(rows) for term in self.terms]

    def right(self, rows: Tensor) -> list[Any]:
        """Every term's."""
        return [term.right(rows) for term in self.terms]

    def values(self, left: list[Any], right: list[Any], out: Tensor | None = None) -> Tensor:
        """(n, m) from the terms' forms."""
        del out
        total: Tensor | None = None
        for term, weight, a, b in zip(self.terms, self.weights, left, right, strict=True):
            values = term.values(a, b).mul_(weight)
            total = values if total is None else total.add_(values)
        assert total is not None, "a sum has terms"
        return total

    def diagonal(self, rows: Tensor) -> Tensor:
        """The weighted sum of the terms' diagonals."""
        parts = [w * t.diagonal(rows) for t, w in zip(self.terms, self.weights, strict=True)]
        return torch.stack(parts).sum(0)


def as_matrix(x: Samples) -> Tensor:
    """Samples as (n, D) float64 rows."""
    # Arrays are copied: they may be read-only, which torch cannot express.
    whole = x if isinstance(x, Tensor) else torch.from_numpy(np.array(x, dtype=np.float64))
    return whole.to(torch.float64).reshape(len(x), -1)


def by_openblas(rows: Tensor) -> bool:
    """Whether such rows are multiplied by NumPy: then torch's threads had better stand aside."""
    return rows.device.type == "cpu" and rows.shape[1] >= OPENBLAS_FROM


def _products(left: Tensor, right: Tensor, out: Tensor | None) -> Tensor:
    """All inner products, (n, m)."""
    if not by_openblas(left):
        return torch.mm(left, right.T, out=out)
    space = left.new_empty(len(left), len(right)) if out is None else out
    np.dot(left.numpy(), right.numpy().T, out=space.numpy())
    return space
