"""The feature maps of kernel mean embeddings: what is averaged over a context set."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sno_dist.embedding.features import Sums, sum_features
from sno_dist.embedding.kernels import Kernel
from sno_dist.embedding.pairs import pair_sums

__all__ = ["FeatureMap", "KernelMeans", "Nystrom", "RandomFeatures"]


class FeatureMap(nn.Module):
    """Interface: features whose means over sample sets tell all that a kernel tells of them."""

    @property
    def size(self) -> int:
        """M, the features."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(n, D) float64 samples to (n, m) float64 features."""
        raise NotImplementedError

    def sums(self, x: Tensor, lengths: Tensor) -> Sums:
        """Feature sums of sets laid end to end, (sum of n, D) and (P,) to (P, m)."""
        return sum_features(self(x), lengths)

    def weigh(self, mean: Tensor) -> Tensor:
        """Mean features (..., m) such that their inner products are those of the embeddings.

        What is linear and the same for every sample waits until after the averaging.
        """
        return mean


class KernelMeans(FeatureMap):
    """Exact: inner products with the mean embeddings of N anchor distributions.

    Equation: phi(x)_j = mean_b k(x, x^j_b). Unlike those of the other maps, these features are
    not coordinates: `weigh` cannot make inner products of them, PCA of the Gram matrix can.

    Args:
        kernel: The kernel.
        anchors: (sum of n, D) samples of the anchor distributions, laid end to end.
        lengths: (N,) how many are each one's.
    """

    anchors: Tensor
    lengths: Tensor

    def __init__(self, kernel: Kernel, anchors: Tensor, lengths: Tensor) -> None:
        super().__init__()
        self.kernel = kernel
        self.register_buffer("anchors", anchors.clone())
        self.register_buffer("lengths", lengths.clone())
        self._made: tuple[tuple[int, int], Any] | None = None

    @property
    def size(self) -> int:
        """M."""
        return len(self.lengths)

    def forward(self, x: Tensor) -> Tensor:
        """(n, D) to (n, N)."""
        return self.sums(x, torch.ones(len(x), dtype=torch.int64)).total

    def sums(self, x: Tensor, lengths: Tensor) -> Sums:
        """Without a row for every sample."""
        used, anchors = x[: int(lengths.sum())], self._right()
        total = pair_sums(self.kernel, used, lengths.tolist(), anchors, self.lengths.tolist())
        return Sums(total=total / self.lengths, count=lengths.to(total))

    def _right(self) -> Any:
        """The anchors' form, which costs more than its use: made once where they lie."""
        here = self.anchors.data_ptr(), self.anchors._version
        if self._made is None or self._made[0] != here:
            self._made = here, self.kernel.right(self.anchors.double())
        return self._made[1]


class RandomFeatures(FeatureMap):
    """Random Fourier features of a radial kernel, independent or orthogonal.

    Equation: phi(x) = (m / 2)^(-1/2) [cos Wx, sin Wx], rows of W from the spectral law.

    Args:
        frequencies: (m / 2, D) W.
    """

    frequencies: Tensor

    def __init__(self, frequencies: Tensor) -> None:
        super().__init__()
        self.register_buffer("frequencies", frequencies.clone())

    @property
    def size(self) -> int:
        """M."""
        return 2 * len(self.frequencies)

    def forward(self, x: Tensor) -> Tensor:
        """(n, D) to (n, m)."""
        angles = x @ self.frequencies.T
        return torch.cat([angles.cos(), angles.sin()], 1)

    def weigh(self, mean: Tensor) -> Tensor:
        """Over the root of m / 2."""
        return mean / len(self.frequencies) ** 0.5


class Nystrom(FeatureMap):
    """The kernel against m anchor samples, whitened by their own kernel matrix.

    Equation: phi(x) = K_aa^(-1/2) k(a, x): the projection on the anchors' span, for any kernel.

    Args:
        kernel: The kernel.
        anchors: (m, D) samples.
        whiten: (m, m) K_aa^(-1/2).
    """

    anchors: Tensor
    whiten: Tensor

    def __init__(self, kernel: Kernel, anchors: Tensor, whiten: Tensor) -> None:
        super().__init__()
        self.kernel = kernel
        self.register_buffer("anchors", anchors.clone())
        self.register_buffer("whiten", whiten.clone())

    @property
    def size(self) -> int:
        """M."""
        return len(self.anchors)

    def forward(self, x: Tensor) -> Tensor:
        """(n, D) to (n, m)."""
        return self.kernel(x, self.anchors)

    def weigh(self, mean: Tensor) -> Tensor:
        """The whitening."""
        return mean @ self.whiten
