"""Covariances of mixtures' components: diagonal, full, low rank plus diagonal, by precisions.

Each form S knows what a Gaussian needs: gap' S^-1 gap and its slope S^-1 gap, ln det S, tr S^-1, a
draw, and itself under noise, alpha^2 S + sigma^2 I. Axes: P distributions, C components, N points,
D entries; n is 1, or N where every point has a noise level of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

__all__ = ["CholeskyPrecision", "Covariance", "Diagonal", "LowRank", "Spectral", "total_of"]


class Covariance:
    """Interface; P, n and C broadcast against the gaps of N points from C centres, (P, N, C, D)."""

    __slots__ = ()

    @property
    def entries(self) -> int:
        """Standard normals that one sample takes."""
        raise NotImplementedError

    def squares(self, gap: Tensor) -> Tensor:
        """Squared distances gap' S^-1 gap: (P, N, C)."""
        raise NotImplementedError

    def pull(self, gap: Tensor) -> Tensor:
        """S^-1 gap: (P, N, C, D)."""
        raise NotImplementedError

    def log_det(self) -> Tensor:
        """Ln det S: (P, n, C)."""
        raise NotImplementedError

    def trace(self) -> Tensor:
        """Traces of S^-1: (P, n, C)."""
        raise NotImplementedError

    def noised(self, alpha: Tensor, sigma: Tensor) -> Covariance:
        """alpha^2 S + sigma^2 I, both (P, n)."""
        raise NotImplementedError

    def colour(self, normals: Tensor, index: Tensor) -> Tensor:
        """Draws of N(0, S_c): (P, N, entries) standard normals and (P, N) c to (P, N, D)."""
        raise NotImplementedError

    def mapped(self, change: Callable[..., Tensor], *others: Covariance) -> Covariance:
        """The same form of changed tensors, each changed together with those of others like it."""
        names = [field.name for field in fields(self)]  # pyright: ignore[reportArgumentType]
        forms = (self, *others)
        return type(self)(*(change(*(getattr(form, name) for form in forms)) for name in names))


@dataclass(frozen=True, slots=True)
class Diagonal(Covariance):
    """S = diag(v).

    Args:
        variances: (P, n, C, D) v; noughts where the law is noised before its density is asked.
    """

    variances: Tensor

    @property
    def entries(self) -> int:
        """D."""
        return self.variances.shape[-1]

    def squares(self, gap: Tensor) -> Tensor:
        """Sum of gap^2 / v."""
        return total_of(gap.square() / self.variances)

    def pull(self, gap: Tensor) -> Tensor:
        """Gap / v."""
        return gap / self.variances

    def log_det(self) -> Tensor:
        """Sum of ln v."""
        return self.variances.log().sum(-1)

    def trace(self) -> Tensor:
        """Sum of 1 / v."""
        return self.variances.reciprocal().sum(-1)

    def noised(self, alpha: Tensor, sigma: Tensor) -> Diagonal:
        """V becomes alpha^2 v + sigma^2."""
        return Diagonal(_noised(self.variances, alpha, sigma))

    def colour(self, normals: Tensor, index: Tensor) -> Tensor:
        """Root of v times z."""
        return _chosen(self.variances, index).sqrt() * normals


@dataclass(frozen=True, slots=True)
class Spectral(Covariance):
    """S = V diag(v) V', which noise leaves in the same basis V.

    Args:
        basis: (P, 1, C, D, D) orthonormal columns.
        variances: (P, n, C, D) v.
    """

    basis: Tensor
    variances: Tensor

    @property
    def entries(self) -> int:
        """D."""
        return self.variances.shape[-1]

    def squares(self, gap: Tensor) -> Tensor:
        """Sum of (V' gap)^2 / v."""
        return total_of(self._turned(gap).square() / self.variances)

    def pull(self, gap: Tensor) -> Tensor:
        """V (V' gap / v)."""
        return torch.einsum("pncij,pncj->pnci", self.basis, self._turned(gap) / self.variances)

    def log_det(self) -> Tensor:
        """Sum of ln v."""
        return self.variances.log().sum(-1)

    def trace(self) -> Tensor:
        """Sum of 1 / v."""
        return self.variances.reciprocal().sum(-1)

    def noised(self, alpha: Tensor, sigma: Tensor) -> Spectral:
        """V becomes alpha^2 v + sigma^2."""
        return Spectral(self.basis, _noised(self.variances, alpha, sigma))

    def colour(self, normals: Tensor, index: Tensor) -> Tensor:
        """V times the root of v times z."""
        scaled = _chosen(self.variances, index).sqrt() * normals
        return torch.einsum("pnij,pnj->pni", _chosen(self.basis, index), scaled)

    def _turned(self, gap: Tensor) -> Tensor:
        return torch.einsum("pncij,pnci->pncj", self.basis, gap)


@dataclass(frozen=True, slots=True)
class LowRank(Covariance):
    """S = diag(v) + U U', whose precision is a diagonal less a matrix of U's rank.

    Equation: with M = I + U' diag(1/v) U, S^-1 = diag(1/v) - diag(1/v) U M^-1 U' diag(1/v)
    (Woodbury) and ln det S = sum ln v + ln det M.

    Args:
        variances: (P, n, C, D) v.
        factor: (P, n, C, D, R) U.
    """

    variances: Tensor
    factor: Tensor

    @property
    def entries(self) -> int:
        """D + R."""
        return self.variances.shape[-1] + self.factor.shape[-1]

    def squares(self, gap: Tensor) -> Tensor:
        """The gap times `pull`."""
        return total_of(gap * self.pull(gap))

    def pull(self, gap: Tensor) -> Tensor:
        """S^-1 gap by two products with U."""
        scaled = self.factor / self.variances[..., None]
        inner = torch.cholesky_inverse(torch.linalg.cholesky(self._inner()))
        middle = torch.einsum("pncdr,pncd->pncr", scaled, gap)
        middle = torch.einsum("pncrs,pncs->pncr", inner, middle)
        return gap / self.variances - torch.einsum("pncdr,pncr->pncd", scaled, middle)

    def log_det(self) -> Tensor:
        """Sum of ln v, and ln det M."""
        return self.variances.log().sum(-1) + torch.logdet(self._inner())

    def trace(self) -> Tensor:
        """Sum of 1 / v, less tr M^-1 U' diag(1 / v^2) U."""
        scaled = self.factor / self.variances[..., None]
        inner = torch.linalg.solve(self._inner(), scaled.mT @ scaled)
        return self.variances.reciprocal().sum(-1) - inner.diagonal(dim1=-2, dim2=-1).sum(-1)

    def noised(self, alpha: Tensor, sigma: Tensor) -> LowRank:
        """V becomes alpha^2 v + sigma^2, and U alpha U."""
        factor = alpha[..., None, None, None] * self.factor
        return LowRank(_noised(self.variances, alpha, sigma), factor)

    def colour(self, normals: Tensor, index: Tensor) -> Tensor:
        """Root of v times the first D normals, and U times the others."""
        variances, factor = _chosen(self.variances, index), _chosen(self.factor, index)
        own, shared = normals.split(list(factor.shape[-2:]), -1)
        return variances.sqrt() * own + torch.einsum("pndr,pnr->pnd", factor, shared)

    def _inner(self) -> Tensor:
        """M, (P, n, C, R, R)."""
        eye = torch.eye(self.factor.shape[-1]).to(self.factor)
        return eye + self.factor.mT @ (self.factor / self.variances[..., None])


@dataclass(frozen=True, slots=True)
class CholeskyPrecision(Covariance):
    """S^-1 = L L', what a fit by gradients moves; under noise it becomes `Spectral`.

    Args:
        factor: (P, 1, C, D, D) lower triangular L of positive diagonal.
    """

    factor: Tensor

    @classmethod
    def regularised(cls, lower: Tensor, epsilon: float) -> CholeskyPrecision:
        """S^-1 = L L' + epsilon I of any lower triangular L, (P, 1, C, D, D)."""
        eye = torch.eye(lower.shape[-1]).to(lower)
        return cls(torch.linalg.cholesky(lower @ lower.mT + epsilon * eye))

    @property
    def entries(self) -> int:
        """D."""
        return self.factor.shape[-1]

    def squares(self, gap: Tensor) -> Tensor:
        """|L' gap|^2."""
        return total_of(self._turned(gap).square())

    def pull(self, gap: Tensor) -> Tensor:
        """L L' gap."""
        return torch.einsum("pncij,pncj->pnci", self.factor, self._turned(gap))

    def log_det(self) -> Tensor:
        """-2 times the sum of ln L_ii."""
        return -2 * self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def trace(self) -> Tensor:
        """Sum of the squares of L."""
        return self.factor.square().sum((-2, -1))

    def spectral(self) -> Spectral:
        """The same covariance by its eigenvectors."""
        values, basis = torch.linalg.eigh(self.factor @ self.factor.mT)
        return Spectral(basis, values.reciprocal())

    def noised(self, alpha: Tensor, sigma: Tensor) -> Spectral:
        """Of `spectral`."""
        return self.spectral().noised(alpha, sigma)

    def colour(self, normals: Tensor, index: Tensor) -> Tensor:
        """The solution y of L' y = z."""
        chosen = _chosen(self.factor, index).mT
        return torch.linalg.solve_triangular(chosen, normals[..., None], upper=True)[..., 0]

    def _turned(self, gap: Tensor) -> Tensor:
        return torch.einsum("pncij,pnci->pncj", self.factor, gap)


def total_of(values: Tensor) -> Tensor:
    """Sums over the last axis; a short one costs several times less term by term."""
    if values.shape[-1] > 4:
        return values.sum(-1)
    first, *rest = values.unbind(-1)
    return sum(rest, start=first)


def _noised(variances: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """alpha^2 v + sigma^2 for (P, n, C, D) and (P, n)."""
    signal, noise = alpha.square()[..., None, None], sigma.square()[..., None, None]
    return signal * variances + noise


def _chosen(values: Tensor, index: Tensor) -> Tensor:
    """Of (P, n, C, ...) the component of each point, (P, N): (P, N, ...)."""
    rows = torch.arange(index.shape[0], device=index.device)[:, None]
    points = torch.arange(index.shape[1], device=index.device)
    return values[rows, points if values.shape[1] > 1 else 0, index]
