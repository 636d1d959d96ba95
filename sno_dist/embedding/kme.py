"""The kernel mean embedding, reduced by RKHS PCA."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sno_dist.embedding.embedder import Embedder
from sno_dist.embedding.feature_map import FeatureMap
from sno_dist.embedding.features import Sums

__all__ = ["Kme"]


class Kme(Embedder):
    """Mean features of a kernel, centred and projected on the seen distributions' components.

    Equation: u = P'(W 1/K sum_i phi(x_i) - origin) (eq. 11, 25), phi and W the feature map's.

    Args:
        feature_map: phi and W.
        tensors: What `fit_embedding` left: "median" () the kernel's bandwidth where the config
            names none, "origin" (m,), "projection" (m, k), "table" (N, k).
        fixed: Whether training takes the rows of the table, instead of random context sets'.
    """

    view = "data"
    median: Tensor
    origin: Tensor
    projection: Tensor
    table: Tensor

    def __init__(
        self, feature_map: FeatureMap, tensors: Mapping[str, Tensor], *, fixed: bool
    ) -> None:
        super().__init__()
        self.map = feature_map
        self.fixed = fixed
        for name in ("median", "origin", "projection", "table"):
            self.register_buffer(name, tensors[name].clone())
        self.layout = (1, self.projection.shape[1])

    def rows(self, index: Tensor) -> Tensor | None:
        """The embeddings that the seen distributions were fitted with, where they are fixed."""
        return self.table[index] if self.fixed else None

    def features(self, x: Tensor) -> Tensor:
        """(n, *shape) to (n, m) float64."""
        return self.map(x.flatten(1).double())

    def sums(self, x: Tensor, lengths: Tensor) -> Sums:
        """As the map adds them up, which may be without a row for every sample."""
        return self.map.sums(x.flatten(1).double(), lengths)

    def read_out(self, mean: Tensor) -> Tensor:
        """(P, m) mean features to (P, k) float32."""
        return ((self.map.weigh(mean) - self.origin) @ self.projection).float()
