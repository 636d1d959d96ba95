"""Maps onto the simplex by log-ratios (Aitchison 1982; Egozcue et al. 2003).

A point of the simplex is d + 1 shares above 0 that add up to 1; y are its d free ones, y_(d+1) =
1 - sum y. Shares near 0 are why derivatives are taken at x, where their logarithms are known.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sno_dist.diffusion.maps.map import Map
from sno_dist.errors import DataError

__all__ = ["LogRatio", "additive_log_ratio", "isometric_log_ratio"]


class LogRatio(Map):
    """The first d entries y of p = softmax(L x).

    Equation, with p all d + 1 shares: J v = p (L v - p'L v); x = Q ln p with Q L = 1, Q 1 = 0;
    ln |det J| = sum ln p + c; its gradient is L'(1 - (d + 1) p);
    D^2 p_i[v, v] = p_i ((a_i - m)^2 - sum_k p_k (a_k - m)^2), a = L v, m = p'a.

    Args:
        basis: L, (d + 1, d), of full rank together with the column of ones.

    Raises:
        DataError: If it is not.
    """

    def __init__(self, basis: Tensor) -> None:
        self.basis = basis.double()
        gaps = self.basis[:-1] - self.basis[-1]
        if gaps.shape[0] != gaps.shape[1]:
            raise DataError(
                "a log-ratio's basis has one row more than columns", got=tuple(basis.shape)
            )
        rank = int(torch.linalg.matrix_rank(gaps))
        if rank < len(gaps):
            raise DataError(
                "a log-ratio's basis does not reach every point of the simplex",
                got=f"contrasts of rank {rank}",
                expected=f"rank {len(gaps)}",
            )
        identity = torch.eye(len(gaps)).double()
        contrasts = torch.cat([identity, -identity.sum(1, keepdim=True)], 1)
        self._reader = torch.linalg.solve(gaps, contrasts)
        self._volume = torch.linalg.slogdet(gaps).logabsdet

    def shares(self, x: Tensor) -> Tensor:
        """All d + 1 shares: (N, d + 1)."""
        return self._spread(x).softmax(1)

    def forward(self, x: Tensor) -> Tensor:
        """The first d shares."""
        return self.shares(x)[:, :-1]

    def inverse(self, y: Tensor) -> Tensor:
        """The log-ratios of the shares."""
        return self.ratios(torch.cat([y, 1 - y.sum(1, keepdim=True)], 1))

    def ratios(self, shares: Tensor) -> Tensor:
        """The log-ratios of all d + 1 shares, (N, d + 1), or of any multiple of them: (N, d)."""
        return shares.log() @ self._reader.to(shares).T

    def contains(self, y: Tensor) -> Tensor:
        """Whether all shares are above 0."""
        return (y > 0).all(1) & (1 - y.sum(1) > 0)

    def jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """Equation: p (L v - p'L v)."""
        shares, moves = self.shares(x), self._spread(v)
        return (shares * (moves - (shares * moves).sum(1, keepdim=True)))[:, :-1]

    def vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """Equation: L'(p v - p p'v), v completed by 0."""
        shares = self.shares(x)
        moves = shares * torch.cat([v, torch.zeros_like(v[:, :1])], 1)
        return (moves - shares * moves.sum(1, keepdim=True)) @ self.basis.to(x)

    def inverse_jvp(self, x: Tensor, v: Tensor) -> Tensor:
        """Equation: Q (v / p), v completed so that it adds up to 0."""
        moves = torch.cat([v, -v.sum(1, keepdim=True)], 1)
        return (moves / self.shares(x)) @ self._reader.to(x).T

    def inverse_vjp(self, x: Tensor, v: Tensor) -> Tensor:
        """Equation: a_i - a_(d+1), a = Q'v / p."""
        slopes = (v @ self._reader.to(x)) / self.shares(x)
        return slopes[:, :-1] - slopes[:, -1:]

    def log_det(self, x: Tensor) -> Tensor:
        """The sum of ln p, and a constant."""
        return self._spread(x).log_softmax(1).sum(1) + self._volume.to(x)

    def log_det_gradient(self, x: Tensor) -> Tensor:
        """Equation: L'(1 - (d + 1) p)."""
        shares = self.shares(x)
        return (1 - shares.shape[1] * shares) @ self.basis.to(x)

    def curvature(self, x: Tensor, v: Tensor) -> Tensor:
        """Of softmax along L v: the squared deviation of L v from its mean, less its variance."""
        shares = self.shares(x)[:, None]
        moves = v @ self.basis.to(x).T
        spread = (moves - (shares * moves).sum(2, keepdim=True)).square()
        excess = spread - (shares * spread).sum(2, keepdim=True)
        return (shares * excess).sum(1)[:, :-1]

    def laplacian(self, x: Tensor) -> Tensor:
        """The same along all axes: p_i (q_i - 2 (L m)_i + 2 m'm - p'q), m = L'p, q_i = |L_i|^2."""
        shares, basis = self.shares(x), self.basis.to(x)
        mean, sizes = shares @ basis, basis.square().sum(1)
        constant = 2 * mean.square().sum(1) - shares @ sizes
        return (shares * (sizes - 2 * mean @ basis.T + constant[:, None]))[:, :-1]

    def _spread(self, v: Tensor) -> Tensor:
        return v @ self.basis.to(v).T


def additive_log_ratio(dims: int) -> LogRatio:
    """Log-ratios x_i = ln(y_i / y_(d+1)): the last share is the reference.

    Args:
        dims: d, one less than the shares.
    """
    return LogRatio(torch.eye(dims + 1, dims))


def isometric_log_ratio(dims: int) -> LogRatio:
    """Log-ratios x = V' ln p, V an orthonormal basis of what adds up to 0: all shares count alike.

    Equation: V's column k (Helmert) is (1, ..., 1, -k, 0, ..., 0) / sqrt(k (k + 1)), k ones.

    Args:
        dims: d, one less than the shares.
    """
    k = torch.arange(1, dims + 1, dtype=torch.float64)
    rows = torch.arange(dims + 1, dtype=torch.float64)[:, None]
    columns = torch.where(rows < k, 1.0, torch.where(rows == k, -k, 0.0))
    return LogRatio(columns / (k * (k + 1)).sqrt())
