"""The kernel mean embedding against anchor distributions, reduced by RKHS PCA."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sno_dist.embedding.embedder import Embedder
from sno_dist.embedding.kernels import gaussian
from sno_dist.embedding.pca import centre

__all__ = ["Kme"]


class Kme(Embedder):
    """Inner products with the seen distributions' mean embeddings, centred and projected.

    Equation: phi(x)_j = mean_b k(x, x^j_b) over anchor distribution j, so that the mean of phi
    over a context set is (<mu, mu_j>)_j; read-out: centring and projection (eq. 11, 25).

    Args:
        tensors: What `fit_embedding` left: "anchors" (N, n, D) float32 in model units,
            "bandwidth" (), "column_mean" (N,), "projection" (N, m), "table" (N, m).
    """

    view = "data"
    anchors: Tensor
    bandwidth: Tensor
    column_mean: Tensor
    projection: Tensor
    table: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name in ("anchors", "bandwidth", "column_mean", "projection", "table"):
            self.register_buffer(name, tensors[name].clone())
        self.layout = (1, self.projection.shape[1])

    def rows(self, index: Tensor) -> Tensor:
        """The embeddings that the seen distributions were fitted with."""
        return self.table[index]

    def features(self, x: Tensor) -> Tensor:
        """(n, *shape) to (n, N) float64 kernel means."""
        flat = x.flatten(1).double()
        bandwidth = float(self.bandwidth)
        columns = [gaussian(flat, anchor.double(), bandwidth).mean(1) for anchor in self.anchors]
        return torch.stack(columns, 1)

    def read_out(self, mean: Tensor) -> Tensor:
        """(P, N) inner products to (P, m) float32."""
        return (centre(mean, self.column_mean) @ self.projection).float()
