"""The token operator: u meets every cell of the latent grid with weights that cells share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sno_dist.nn.layers import Fourier, zero_linear
from sno_dist.nn.tokens import TokenBlock

__all__ = ["TokenOperator"]

TIME = 128


class TokenOperator(nn.Module):
    """Blocks of token mixing and a gated perceptron; u is concatenated at every block.

    Args:
        layout: (T, C) of x: tokens, and entries of each.
        embedding: (T', E) of u. With T' = T, token t of u goes to token t of x; otherwise u is
            mapped linearly to T tokens.
        width: Channels.
        hidden: Width of the perceptrons.
        blocks: Depth.
        groups: Mixing matrices per block.
    """

    def __init__(
        self,
        layout: tuple[int, int],
        embedding: tuple[int, int],
        *,
        width: int,
        hidden: int,
        blocks: int,
        groups: int,
    ) -> None:
        super().__init__()
        self.layout = layout
        tokens, channels = layout
        matched = embedding[0] == tokens
        self.side = embedding[1] if matched else 32
        self.spread = None if matched else nn.Linear(embedding[0] * embedding[1], tokens * 32)
        self.time = nn.Sequential(
            Fourier(64, 1.5), nn.Linear(64, TIME), nn.SiLU(), nn.Linear(TIME, TIME), nn.SiLU()
        )
        self.enter = nn.Linear(channels + self.side, width)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, 1, width))
        self.blocks = nn.ModuleList(
            TokenBlock(tokens, width, hidden, groups, side=self.side, condition=TIME)
            for _ in range(blocks)
        )
        self.norm = nn.LayerNorm(width)
        self.leave = zero_linear(width, channels)

    def forward(self, u: Tensor, x: Tensor, c: Tensor) -> Tensor:
        """(N, T' E), (N, T C) of unit scale, (N,) noise coordinate, to (N, T C)."""
        tokens, channels = self.layout
        side = (u if self.spread is None else self.spread(u)).reshape(-1, tokens, self.side)
        side = side.transpose(0, 1)
        grid = x.reshape(-1, tokens, channels).transpose(0, 1)
        condition = self.time(c)
        h = self.enter(torch.cat([grid, side.to(grid.dtype)], -1)) + self.position
        for block in self.blocks:
            h = block(h, side, condition)
        return self.leave(self.norm(h)).transpose(0, 1).reshape(x.shape)
