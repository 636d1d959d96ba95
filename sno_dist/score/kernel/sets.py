"""Context sets of unequal sizes as one padded block, with the draws that a fit makes of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sno_dist.errors import DataError

__all__ = ["ContextSets", "Members", "taken"]


@dataclass(frozen=True, slots=True)
class ContextSets:
    """P sets, padded with noughts to the longest.

    Args:
        samples: (P, K, D) float64.
        lengths: (P,) int64, at least 1.
    """

    samples: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, sets: Sequence[Tensor]) -> ContextSets:
        """Pad sets, each (K, D).

        Raises:
            DataError: If there is no set, one is empty, their dimensions differ, or a value is not
                finite.
        """
        shapes = sorted({tuple(own.shape[1:]) for own in sets})
        if len(shapes) != 1 or len(shapes[0]) != 1 or not all(len(own) for own in sets):
            raise DataError(
                "context sets cannot be fitted",
                got=f"{len(sets)} sets of {sorted({len(own) for own in sets})[:4]} samples, "
                f"each of shape {shapes}",
                expected="at least one set, (K, D) with K >= 1 and one D",
            )
        if not all(bool(own.isfinite().all()) for own in sets):
            raise DataError("context sets hold values that are not finite", fix="mend the data")
        padded = torch.nn.utils.rnn.pad_sequence([own.double() for own in sets], batch_first=True)
        return cls(padded, torch.tensor([len(own) for own in sets], device=padded.device))

    @property
    def mask(self) -> Tensor:
        """(P, K) which rows are samples."""
        return torch.arange(self.samples.shape[1]).to(self.lengths) < self.lengths[:, None]

    def variances(self, pooled: float | None) -> Tensor:
        """The variance of each set per entry, towards that of all sets where samples are few.

        Equation: ((K - 1) s^2 + v) / K, s^2 the unbiased variance, averaged over entries; v the
        pooled one, sum (K - 1) s^2 / sum (K - 1).

        Args:
            pooled: V; none: of these sets, or 1 where none has two samples.

        Returns:
            (P,).
        """
        weight = self.mask.double()[..., None]
        mean = (weight * self.samples).sum(1, keepdim=True) / self.lengths[:, None, None]
        squares = (weight * (self.samples - mean).square()).sum(1).mean(-1)
        freedom = (self.lengths - 1).sum()
        if pooled is None:
            pooled = float(squares.sum() / freedom) if bool(squares.sum() > 0) else 1.0
        return (squares + pooled) / self.lengths


@dataclass(frozen=True, slots=True)
class Members:
    """M models of each set, each of which leaves out other samples of its set: rows R = P M.

    Args:
        samples: (R, K, D).
        fitted: (R, K) 1 where a sample is fitted, else 0.
        held_out: (R, H, D) those that tell when to stop.
        told: (R, H) 1 where there is one, else 0; all 0 in sets that are too small.
    """

    samples: Tensor
    fitted: Tensor
    held_out: Tensor
    told: Tensor

    @classmethod
    def of(
        cls,
        sets: ContextSets,
        members: int,
        share: float,
        smallest: int,
        sources: Sequence[np.random.Generator],
    ) -> Members:
        """Leave out a share of each set, at another place of one random order for each member.

        Args:
            sets: The context sets.
            members: M.
            share: Of a set that each member leaves out.
            smallest: K below which nothing is left out.
            sources: One for each set, from which its order is drawn.
        """
        count = sets.samples.shape[1]
        out = torch.zeros(len(sources), members, count, dtype=torch.float64)
        for rows, source, length in zip(out, sources, sets.lengths.tolist(), strict=True):
            order = torch.from_numpy(source.permutation(length))
            left = max(1, round(share * length)) if length >= smallest else 0
            for member, row in enumerate(rows):
                row[order.roll(-(member * length // members))[:left]] = 1
        out = out.flatten(0, 1).to(sets.samples)
        samples = sets.samples.repeat_interleave(members, 0)
        told, first = torch.sort(out, dim=1, descending=True, stable=True)
        most = int(out.sum(1).max())
        return cls(
            samples=samples,
            fitted=sets.mask.repeat_interleave(members, 0).to(samples) - out,
            held_out=taken(samples, first[:, :most]),
            told=told[:, :most],
        )

    def verdict(self, losses: Tensor, step: int) -> Tensor:
        """The mean of held-out losses (R, H), (R,); where nothing is held out, later is better."""
        counts = self.told.sum(1)
        mean = (losses * self.told).sum(1) / counts.clamp(min=1)
        return torch.where(counts > 0, mean, -float(step))


def taken(samples: Tensor, index: Tensor) -> Tensor:
    """Of (R, K, D) the samples at (R, N): (R, N, D)."""
    return samples.gather(1, index[..., None].expand(-1, -1, samples.shape[2]))
