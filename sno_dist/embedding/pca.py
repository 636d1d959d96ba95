"""Principal components of mean embeddings: in the kernel's Hilbert space, or of mean features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sno_dist.errors import DataError

__all__ = ["RkhsPca", "Scaling", "centre", "feature_pca", "gram_pca"]

Scaling = Literal["isometric", "whitened"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RkhsPca:
    """The map from mean features, or from inner products with the anchors, to u.

    Args:
        projection: (m, k) coefficients, scaling included.
        origin: (m,) what is subtracted first: the mean over the N distributions.
        eigenvalues: Of the centred Gram matrix, decreasing; all that are not rounding.
        kept: Share of the centred Gram's trace that the k components hold.
    """

    projection: Tensor
    origin: Tensor
    eigenvalues: Tensor
    kept: float

    @property
    def components(self) -> int:
        """K, entries of u."""
        return self.projection.shape[1]

    def __call__(self, features: Tensor) -> Tensor:
        """U of distributions, (P, m) float64 to (P, k)."""
        return (features - self.origin) @ self.projection


def centre(products: Tensor, column_mean: Tensor) -> Tensor:
    """Inner products of centred embeddings: H (kappa - K 1 / N), (P, N)."""
    shifted = products - column_mean
    return shifted - shifted.mean(1, keepdim=True)


def gram_pca(gram: Tensor, components: int | None, noise: float, scaling: Scaling) -> RkhsPca:
    """Eigen-decompose the centred Gram matrix of N mean embeddings.

    Equation: M = H K H, M c_k = w_k c_k, |c_k| = 1; isometric scores c_k' k~ / sqrt(w_k) with
    k~ = H (kappa - K 1 / N) (eq. 11, 25, with the component's and the summation's index told
    apart), then one global scale that makes the mean |u|^2 equal k; whitened scores
    sqrt(N) c_k' k~ / w_k. Since c_k' 1 = 0, the second centring of k~ needs no work. Full-rank
    whitening puts all training distributions at equal distance, a one-hot code, so it is for N
    much larger than k only. Signs make each c_k's largest entry positive.

    Args:
        gram: (N, N) float64, symmetric.
        components: k; none: those whose variance w_k / N exceeds the sampling noise per component.
        noise: Trace of the mean embeddings' sampling covariance, (E k(x, x) - |mu|^2) / n.
        scaling: isometric or whitened.

    Raises:
        DataError: If there is no variance to have components of.
    """
    count, origin = len(gram), gram.mean(0)
    w, c, spectrum = _eigen(centre(gram, origin), count, components, noise)
    return RkhsPca(
        projection=c * (_scale(w, count, scaling) / w.sqrt()),
        origin=origin,
        eigenvalues=spectrum,
        kept=float(w.sum() / spectrum.sum()),
    )


def feature_pca(
    features: Tensor, components: int | None, noise: float, scaling: Scaling
) -> RkhsPca:
    """The same from mean features, whose inner products are the Gram matrix.

    The eigenvalue problem is N x N or m x m, whichever is smaller.

    Equation: with Z the centred features, Z Z' = M; the direction of component k is
    v_k = Z' c_k / sqrt(w_k), an eigenvector of Z' Z.

    Args:
        features: (N, m) float64, weighed.
        components: As for `gram_pca`.
        noise: As for `gram_pca`.
        scaling: As for `gram_pca`.

    Raises:
        DataError: As from `gram_pca`.
    """
    count, origin = len(features), features.mean(0)
    centred = features - origin
    if features.shape[1] < count:
        w, directions, spectrum = _eigen(centred.T @ centred, count, components, noise)
        directions = directions * _signs(centred @ directions)
    else:
        w, c, spectrum = _eigen(centred @ centred.T, count, components, noise)
        directions = centred.T @ c / w.sqrt()
    return RkhsPca(
        projection=directions * _scale(w, count, scaling),
        origin=origin,
        eigenvalues=spectrum,
        kept=float(w.sum() / spectrum.sum()),
    )


def _eigen(
    matrix: Tensor, count: int, components: int | None, noise: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The kept eigenvalues and vectors, signs fixed, and all eigenvalues that are not rounding."""
    values, vectors = torch.linalg.eigh(0.5 * (matrix + matrix.T))
    values, vectors = values.flip(0), vectors.flip(1)
    if not float(values[0]) > 0:
        raise DataError(
            "the distributions' mean embeddings do not differ",
            got=f"{count} seen distributions, largest eigenvalue {float(values[0]):.3g}",
            fix="embed at least two seen distributions that differ, or set embedding.kind",
        )
    rank = max(1, int((values > 1e-12 * values[0]).sum()))
    if components is None:
        # noise's own k-th eigenvalue is at most noise / k: a larger one tells of a difference, and
        # so do all before it
        above = [k + 1 for k in range(rank) if float(values[k]) / count > noise / (k + 1)]
        components = max(above, default=1)
    size = min(components, rank)
    kept = vectors[:, :size]
    return values[:size], kept * _signs(kept), values[:rank]


def _signs(columns: Tensor) -> Tensor:
    """What makes the largest entry of each column positive: (k,)."""
    return columns.gather(0, columns.abs().argmax(0, keepdim=True))[0].sign()


def _scale(w: Tensor, count: int, scaling: Scaling) -> Tensor:
    """What scores of the training variance w / N are multiplied by."""
    match scaling:
        case "isometric":
            return (len(w) * count / w.sum()).sqrt()
        case "whitened":
            return count**0.5 / w.sqrt()
