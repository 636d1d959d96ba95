"""The one statistic of a context set: sums of features and a count, which merge by addition."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Sums", "sum_features"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Sums:
    """Sums of features over the context sets of P distributions.

    Args:
        total: (P, ...) sums.
        count: (P,) how many samples each is of.
        latents: (P, Z) sums of the standardised latents, where a closed-form base asks for them.
    """

    total: Tensor
    count: Tensor
    latents: Tensor | None = None

    def __add__(self, other: Sums) -> Sums:
        """Sums over the union of disjoint sets: shards, ranks and sites add up."""
        return Sums(
            total=self.total + other.total,
            count=self.count + other.count,
            latents=None if self.latents is None else self.latents + other.of_latents,
        )

    def __sub__(self, other: Sums) -> Sums:
        """Sums without those of a part that is taken back."""
        return self + Sums(
            total=-other.total,
            count=-other.count,
            latents=None if other.latents is None else -other.latents,
        )

    @property
    def of_latents(self) -> Tensor:
        """The latents' sums, where they were asked for."""
        assert self.latents is not None, "sums with latents and without do not merge"
        return self.latents

    @property
    def mean(self) -> Tensor:
        """(P, ...) means."""
        return self.total / self.count.reshape(-1, *[1] * (self.total.dim() - 1))


def sum_features(features: Tensor, lengths: Tensor) -> Sums:
    """Add up the features of context sets laid end to end.

    Args:
        features: (at least sum of K, ...) one row per sample, any floating dtype; rows beyond
            the sum are padding.
        lengths: (P,) int64, K of each set; on the CPU, where it costs no synchronisation.

    Returns:
        Sums in float32 at least.
    """
    features = features[: int(lengths.sum())]
    wide = features if features.dtype == torch.float64 else features.float()
    total = torch.segment_reduce(
        wide.flatten(1), "sum", lengths=lengths.to(wide.device), axis=0, unsafe=True
    )
    return Sums(total=total.reshape(-1, *features.shape[1:]), count=lengths.to(total))
