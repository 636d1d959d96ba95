"""What one forward of training takes."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

__all__ = ["Batch", "padded"]

BUCKET = 32
"""Rows of the context sets of a forward come in multiples of this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Context sets and targets of P distributions, with every random number of the step.

    Args:
        context: (at least sum of K, *shape) context sets laid end to end, data units; rows
            beyond the sum are padding.
        lengths: (P,) int64, K of each; stays on the CPU.
        rows: (P,) int64, index of each distribution among the seen ones.
        targets: (P, B, *shape), disjoint from the context sets, data units.
        references: (P, R, *shape), further samples that are neither; R may be 0.
        times: (P, B) uniforms on [0, 1).
        noise: (P, B, Z) standard normals: the diffusion's noise.
        posterior: (P, B, Z) standard normals: the autoencoder's.
        null: (P, B) bool: where u is dropped.
    """

    context: Tensor
    lengths: Tensor
    rows: Tensor
    targets: Tensor
    references: Tensor
    times: Tensor
    noise: Tensor
    posterior: Tensor
    null: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on another device; lengths stay, since they steer the CPU."""
        moved = {
            field.name: getattr(self, field.name).to(device, non_blocking=True)
            for field in fields(self)
            if field.name != "lengths"
        }
        return Batch(lengths=self.lengths, **moved)

    def part(self, start: int, stop: int) -> Batch:
        """The distributions `start` to `stop`, for gradient accumulation."""
        ends = self.lengths.cumsum(0).tolist()
        first = ends[start - 1] if start else 0
        rest = {
            field.name: getattr(self, field.name)[start:stop]
            for field in fields(self)
            if field.name != "context"
        }
        return Batch(context=padded(self.context[first : ends[stop - 1]]), **rest)


def padded(context: Tensor) -> Tensor:
    """Repeat the first row up to a multiple of BUCKET, so that few shapes occur.

    A row of zeros may be no sample: under a transform its gradients may not be finite, though
    nothing is made of it. Libraries keep a compiled primitive, with its scratch memory, for every
    shape they meet: without this a rank on a CPU grows with each new number of context samples.
    """
    rows = -len(context) % BUCKET
    return torch.cat([context, context[:1].expand(rows, *context.shape[1:])])
