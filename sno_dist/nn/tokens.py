"""The token block: linear mixing of tokens, then a gated perceptron on the channels.

Tokens are few and fixed in number (the cells of a latent grid), so a learned mixing matrix is
cheaper than attention and as good. Tensors are token-major, (T, N, C), which makes both products
plain matrix products.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sno_dist.nn.layers import zero_linear

__all__ = ["TokenBlock"]


class TokenBlock(nn.Module):
    """h += mix(norm(h)); h += perceptron([norm(h), side]), modulated by a condition.

    Args:
        tokens: T.
        width: C.
        hidden: Width of the perceptron.
        groups: Mixing matrices; each mixes its share of the channels.
        side: Entries of a side input per token (the embedding u), 0 for none.
        condition: Entries of the modulating vector (the time), 0 for none.
    """

    def __init__(
        self,
        tokens: int,
        width: int,
        hidden: int,
        groups: int,
        *,
        side: int = 0,
        condition: int = 0,
    ) -> None:
        super().__init__()
        self.groups = groups
        self.norm_tokens = nn.LayerNorm(width, elementwise_affine=False)
        self.value = nn.Linear(width, width)
        self.mix = nn.Parameter(torch.randn(groups, tokens, tokens) * 0.7 / tokens**0.5)
        self.norm_channels = nn.LayerNorm(width, elementwise_affine=False)
        self.enter = nn.Linear(width + side, hidden)
        self.modulate = zero_linear(condition, 2 * hidden) if condition else None
        self.leave = zero_linear(hidden, width)

    def forward(
        self, h: Tensor, side: Tensor | None = None, condition: Tensor | None = None
    ) -> Tensor:
        """One block.

        Args:
            h: (T, N, C).
            side: (T, N, side), if the block was made with one.
            condition: (N, condition), likewise.

        Returns:
            (T, N, C).
        """
        h = h + self._mixed(self.value(self.norm_tokens(h)))
        entry = self.norm_channels(h)
        if side is not None:
            entry = torch.cat([entry, side.to(entry.dtype)], -1)
        inner = self.enter(entry)
        if self.modulate is not None and condition is not None:
            scale, shift = self.modulate(condition).chunk(2, -1)
            inner = inner * (1 + scale) + shift
        return h + self.leave(nn.functional.silu(inner))

    def _mixed(self, v: Tensor) -> Tensor:
        tokens, count, width = v.shape
        grouped = v.reshape(tokens, count, self.groups, -1).permute(2, 0, 1, 3)
        mixed = torch.bmm(self.mix.to(v.dtype), grouped.reshape(self.groups, tokens, -1))
        mixed = mixed.reshape(self.groups, tokens, count, -1).permute(1, 2, 0, 3)
        return mixed.reshape(tokens, count, width)
