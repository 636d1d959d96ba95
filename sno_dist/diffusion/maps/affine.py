"""y = A x + b."""

from __future__ import annotations

import torch
from torch import Tensor

from sno_dist.diffusion.maps.map import Map
from sno_dist.errors import DataError

__all__ = ["Affine"]


class Affine(Map):
    """y = A x + b.

    Args:
        matrix: A, (d, d), of full rank.
        shift: b, (d,).

    Raises:
        DataError: If A is not of full rank, or the shapes do not fit.
    """

    def __init__(self, matrix: Tensor, shift: Tensor) -> None:
        dims = len(shift)
        if matrix.shape != (dims, dims):
            raise DataError(
                "an affine map's matrix does not fit its shift",
                got=tuple(matrix.shape),
                expected=(dims, dims),
            )
        rank = int(torch.linalg.matrix_rank(matrix.double()))
        if rank < dims:
            raise DataError(
                "an affine map's matrix has no inverse", got=f"rank {rank}", expected=f"rank {dims}"
            )
        self.matrix, self.shift = matrix, shift
        self._inverse = torch.linalg.inv(matrix.double())
        self._log_det = torch.linalg.slogdet(matrix.double()).logabsdet

    def forward(self, x: Tensor) -> Tensor:
        """A x + b."""
        return self.jvp(x, x) + self.shift.to(x)

    def inverse(self, y: Tensor) -> Tensor:
        """A^-1 (y - b)."""
        return self.inverse_jvp(y, y - self.shift.to(y))

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """A v."""
        return v @ self.matrix.to(x).T

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """A' v."""
        return v @ self.matrix.to(x)

    def inverse_jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """A^-1 v."""
        return v @ self._inverse.to(x).T

    def inverse_vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """A^-T v."""
        return v @ self._inverse.to(x)

    def log_det(self, x: Tensor) -> Tensor:
        """Ln |det A|, everywhere the same."""
        return self._log_det.to(x).expand(len(x))

    def log_det_gradient(self, x: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(x)

    def curvature(self, x: Tensor, v: Tensor) -> Tensor:
        """0."""
        del v
        return torch.zeros_like(x)

    def laplacian(self, x: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(x)
