"""Principal components in the kernel's Hilbert space, from a Gram matrix of mean embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["RkhsPca", "Scaling", "centre", "fit_pca"]

Scaling = Literal["isometric", "whitened"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RkhsPca:
    """The map from a row of inner products with the anchors to u.

    Args:
        projection: (N, m) coefficients, scaling included.
        column_mean: (N,) mean of each column of the anchors' Gram matrix.
        eigenvalues: (m,) of the centred Gram matrix, decreasing.
        kept: Share of the centred Gram's trace that the m components hold.
    """

    projection: Tensor
    column_mean: Tensor
    eigenvalues: Tensor
    kept: float

    def __call__(self, products: Tensor) -> Tensor:
        """U of new distributions from their inner products with the anchors.

        Equation: u_k = c_k' (kappa_j - mean kappa - mean_j K + mean K) / sqrt(w_k) (eq. 11, 25,
        with the component's and the summation's index told apart).

        Args:
            products: (P, N) with entries <mu, mu_j>, float64.

        Returns:
            (P, m).
        """
        return centre(products, self.column_mean) @ self.projection


def centre(products: Tensor, column_mean: Tensor) -> Tensor:
    """Inner products of centred embeddings: H (kappa - K 1 / N), (P, N)."""
    shifted = products - column_mean
    return shifted - shifted.mean(1, keepdim=True)


def fit_pca(gram: Tensor, components: int | None, noise: float, scaling: Scaling) -> RkhsPca:
    """Eigen-decompose the centred Gram matrix.

    Equation: M = H K H, M c_k = w_k c_k, |c_k| = 1; isometric scores c_k' k~ / sqrt(w_k), then
    one global scale that makes the mean |u|^2 equal m; whitened scores sqrt(N) c_k' k~ / w_k.
    Full-rank whitening puts all training distributions at equal distance, a one-hot code, so it
    is for N much larger than m only. Signs make each c_k's largest entry positive.

    Args:
        gram: (N, N) float64, symmetric.
        components: m; none: those whose variance w_k / N exceeds the sampling noise per component.
        noise: Trace of the mean embeddings' sampling covariance, (1 - |mu|^2) / n.
        scaling: isometric or whitened.
    """
    count = len(gram)
    column_mean = gram.mean(0)
    centred = centre(gram, column_mean)
    values, vectors = torch.linalg.eigh(0.5 * (centred + centred.T))
    values, vectors = values.flip(0).clamp_min(0), vectors.flip(1)
    rank = int((values > 1e-12 * values[0]).sum())
    if components is None:
        kept = [k for k in range(rank) if float(values[k]) / count > noise / (k + 1)]
        components = max(1, len(kept))
    size = min(components, rank)
    w, c = values[:size], vectors[:, :size]
    largest = c.abs().argmax(0)
    c = c * c[largest, torch.arange(size)].sign()
    match scaling:
        case "isometric":
            projection = c / w.sqrt() * (size * count / w.sum()).sqrt()
        case "whitened":
            projection = c * count**0.5 / w
    share = float(w.sum() / values.sum())
    return RkhsPca(projection=projection, column_mean=column_mean, eigenvalues=w, kept=share)
