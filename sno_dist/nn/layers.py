"""Multilayer perceptrons and Fourier features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

__all__ = ["Fourier", "mlp", "zero_linear"]


class Fourier(nn.Module):
    """Random Fourier features: [sin(2 pi W z), cos(2 pi W z)], W frozen.

    Args:
        features: How many entries come out; even.
        deviation: Standard deviation of the frequencies.
        entries: Of z; a scalar by default.
    """

    frequencies: Tensor

    def __init__(self, features: int, deviation: float, entries: int = 1) -> None:
        super().__init__()
        self.register_buffer("frequencies", deviation * torch.randn(entries, features // 2))

    def forward(self, z: Tensor) -> Tensor:
        """(N,) scalars or (N, entries) to (N, features), never in half precision."""
        with torch.autocast(z.device.type, enabled=False):
            angle = 2 * math.pi * z.to(self.frequencies).reshape(len(z), -1) @ self.frequencies
        return torch.cat([angle.sin(), angle.cos()], 1)


def mlp(
    entries: int, width: int, depth: int, exits: int, activation: type[nn.Module] = nn.GELU
) -> nn.Sequential:
    """`depth` layers of `width`, then a linear layer to `exits`; depth 0 is linear."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(entries, width), activation()]
        entries = width
    return nn.Sequential(*layers, nn.Linear(entries, exits))


def zero_linear(entries: int, exits: int) -> nn.Linear:
    """A linear layer that starts at zero, so that what it feeds starts at rest."""
    layer = nn.Linear(entries, exits)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
