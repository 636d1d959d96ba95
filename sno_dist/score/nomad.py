"""NOMAD: a branch network on u, a trunk network on (x, c), and an output network on both."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from sno_dist.nn.layers import Fourier, mlp

__all__ = ["Join", "Nomad"]

Join = Literal["concat", "product"]


class Nomad(nn.Module):
    """Equation: F(u, x, c) = Out(Branch(u) o Trunk(x, gamma(x), gamma(c))), gamma Fourier features.

    o lays the two end to end (the paper) or multiplies them entry by entry.

    Args:
        dims: Z, entries of x.
        embedding: U, entries of u.
        width: Width of every layer.
        depth: Layers of each network.
        linear_branch: Make the branch affine in u, which generalises better to unseen u.
        deviation: Standard deviation of the Fourier frequencies of c.
        detail: The same of frequencies of x; none: the trunk sees x alone.
        join: How branch and trunk meet.
    """

    def __init__(
        self,
        dims: int,
        embedding: int,
        *,
        width: int,
        depth: int,
        linear_branch: bool,
        deviation: float,
        detail: float | None,
        join: Join,
    ) -> None:
        super().__init__()
        waves = 2 * (width // 8)
        self.time = Fourier(waves, deviation)
        self.space = Fourier(waves, detail, dims) if detail else None
        self.branch = mlp(embedding, width, 0 if linear_branch else depth, width)
        self.trunk = mlp(dims + waves * (2 if detail else 1), width, depth, width)
        self.output = mlp(2 * width if join == "concat" else width, width, depth, dims)
        self.join: Join = join

    def forward(self, u: Tensor, x: Tensor, c: Tensor) -> Tensor:
        """(N, U), (N, Z) of unit scale, (N,) noise coordinate, to (N, Z)."""
        inputs = [x, self.time(c)] if self.space is None else [x, self.space(x), self.time(c)]
        branch, trunk = self.branch(u), self.trunk(torch.cat(inputs, 1))
        joined = torch.cat([branch, trunk], 1) if self.join == "concat" else branch * trunk
        return self.output(joined)
