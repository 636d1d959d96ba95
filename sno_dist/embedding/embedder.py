"""What every embedding is: `read_out(mean of features)`, u for any context set of any size."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sno_dist.embedding.features import Sums, sum_features
from sno_dist.errors import DataError

__all__ = ["Conditional", "Embedder", "Prototype"]


class Embedder(nn.Module):
    """Interface: u = read_out(1/K sum_i features(x_i)).

    Attributes:
        layout: (T, E): u is T tokens of E entries, carried flat, (P, T E).
        view: What `features` takes: "latent" (the autoencoder's standardised means, (n, Z)) or
            "data" (samples in model units, (n, *shape)).
        embeds: Whether `features` can be asked of a distribution never trained on.
    """

    layout: tuple[int, int]
    view: Literal["latent", "data"] = "latent"
    embeds: bool = True

    @property
    def size(self) -> int:
        """U, the entries of u."""
        return self.layout[0] * self.layout[1]

    def features(self, x: Tensor) -> Tensor:
        """Features of each sample: (n, ...)."""
        raise NotImplementedError

    def read_out(self, mean: Tensor) -> Tensor:
        """From mean features (P, ...) to u, (P, U)."""
        raise NotImplementedError

    def rows(self, index: Tensor) -> Tensor | None:
        """U of seen distributions from a table, (P,) to (P, U); None where contexts give it."""
        del index
        return None

    def sums(self, x: Tensor, lengths: Tensor) -> Sums:
        """Feature sums of context sets laid end to end; they merge by addition."""
        return sum_features(self.features(x), lengths)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """U of context sets laid end to end: (sum of K, ...), (P,) to (P, U)."""
        return self.read_out(self.sums(x, lengths).mean)


class Prototype(Embedder):
    """Equation: u = 1/K sum_i N(x_i), N the autoencoder's mean (eq. 12).

    Args:
        layout: (T, C) of the latent.
    """

    def __init__(self, layout: tuple[int, int]) -> None:
        super().__init__()
        self.layout = layout

    def features(self, x: Tensor) -> Tensor:
        """The latent means themselves, (n, Z)."""
        return x

    def read_out(self, mean: Tensor) -> Tensor:
        """The identity."""
        return mean


class Conditional(Embedder):
    """A learned row per seen distribution; it cannot embed a new one.

    Args:
        rows: How many seen distributions.
        features: U.
    """

    embeds = False

    def __init__(self, rows: int, features: int) -> None:
        super().__init__()
        self.layout = (1, features)
        self.table = nn.Parameter(torch.randn(rows, features))

    def rows(self, index: Tensor) -> Tensor:
        """The learned rows."""
        return self.table[index]

    def features(self, x: Tensor) -> Tensor:
        """Never possible.

        Raises:
            DataError: Always.
        """
        raise DataError(
            "a conditional model cannot embed a context set",
            got=f"{len(x)} samples",
            expected="the index of a seen distribution",
            fix="train with embedding.kind=set_encoder, prototype or kme",
        )
