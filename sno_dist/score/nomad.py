"""NOMAD: a branch network on u, a trunk network on (x, c), and an output network on both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sno_dist.nn.layers import Fourier, mlp

__all__ = ["Nomad"]


class Nomad(nn.Module):
    """Equation: F(u, x, c) = Out([Branch(u), Trunk(x, gamma(c))]), gamma Fourier features.

    Args:
        dims: Z, entries of x.
        embedding: U, entries of u.
        width: Width of every layer.
        depth: Layers of each network.
        linear_branch: Make the branch affine in u, which generalises better to unseen u.
        deviation: Standard deviation of the Fourier frequencies of c.
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
    ) -> None:
        super().__init__()
        self.time = Fourier(2 * (width // 8), deviation)
        self.branch = mlp(embedding, width, 0 if linear_branch else depth, width)
        self.trunk = mlp(dims + 2 * (width // 8), width, depth, width)
        self.output = mlp(2 * width, width, depth, dims)

    def forward(self, u: Tensor, x: Tensor, c: Tensor) -> Tensor:
        """(N, U), (N, Z) of unit scale, (N,) noise coordinate, to (N, Z)."""
        trunk = self.trunk(torch.cat([x, self.time(c)], 1))
        return self.output(torch.cat([self.branch(u), trunk], 1))
