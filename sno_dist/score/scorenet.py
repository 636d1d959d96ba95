"""ScoreNet: a U-shaped multilayer perceptron with the time and u added at every level."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sno_dist.nn.layers import Fourier

__all__ = ["ScoreNet"]


class _Level(nn.Module):
    def __init__(self, entries: int, exits: int, condition: int) -> None:
        super().__init__()
        self.value = nn.Linear(entries, exits)
        self.bias = nn.Linear(condition, exits)
        self.norm = nn.LayerNorm(exits)

    def forward(self, h: Tensor, condition: Tensor) -> Tensor:
        return nn.functional.logsigmoid(self.norm(self.value(h) + self.bias(condition)))


class ScoreNet(nn.Module):
    """Levels of halving width down, the same up, each fed by its mirror image's output.

    Args:
        dims: Z, entries of x.
        embedding: U, entries of u.
        width: Width of the first level; halved at each.
        levels: How many halvings.
        deviation: Standard deviation of the Fourier frequencies of c.
    """

    def __init__(
        self, dims: int, embedding: int, *, width: int, levels: int, deviation: float
    ) -> None:
        super().__init__()
        features = 2 * (width // 8)
        self.time = Fourier(features, deviation)
        self.condition = nn.Sequential(nn.Linear(features + embedding, width), nn.SiLU())
        widths = [max(8, width >> i) for i in range(levels + 1)]
        entries = [dims, *widths[:-1]]
        self.down = nn.ModuleList(_Level(a, b, width) for a, b in zip(entries, widths, strict=True))
        self.up = nn.ModuleList(
            _Level(widths[i + 1] if i + 1 == levels else 2 * widths[i + 1], widths[i], width)
            for i in reversed(range(levels))
        )
        self.exit = nn.Linear(2 * widths[0], dims)

    def forward(self, u: Tensor, x: Tensor, c: Tensor) -> Tensor:
        """(N, U), (N, Z) of unit scale, (N,) noise coordinate, to (N, Z)."""
        condition = self.condition(torch.cat([self.time(c), u], 1))
        h, mirrors = x, []
        for level in self.down:
            h = level(h, condition)
            mirrors.append(h)
        mirrors.pop()
        for level in self.up:
            h = torch.cat([level(h, condition), mirrors.pop()], 1)
        return self.exit(h)
