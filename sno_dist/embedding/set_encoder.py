"""A learned embedding: token blocks on each sample, pooled by mean and by attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sno_dist.embedding.embedder import Embedder
from sno_dist.nn.tokens import TokenBlock

__all__ = ["SetEncoder"]

LIMIT = 8.0


class SetEncoder(Embedder):
    """Attention pooling written as a mean of features, so that it merges like every other.

    Equation: phi(x) = [h, e^{a_1} h, e^{a_1}, ...] with h = blocks(x), a_q = LIMIT tanh(m_q /
    LIMIT) and m_q the mean over tokens of q'h + b_q; read-out: [mean h, mean(e^a h) / mean(e^a)]
    -> linear -> block -> u. The bound on a keeps the sums of exponentials finite without a running
    maximum, which would not add up over shards.

    Args:
        layout: (T, C) of the latent.
        width: Channels.
        blocks: Blocks before pooling.
        features: Entries of u per token.
        queries: Attention queries; 0 pools by the mean alone.
    """

    def __init__(
        self, layout: tuple[int, int], *, width: int, blocks: int, features: int, queries: int
    ) -> None:
        super().__init__()
        tokens, channels = layout
        self.layout = (tokens, features)
        self.latent = layout
        self.queries = queries
        self.enter = nn.Linear(channels, width)
        self.position = nn.Parameter(0.02 * torch.randn(tokens, 1, width))
        self.blocks = nn.ModuleList(TokenBlock(tokens, width, 3 * width, 4) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, queries) if queries else None
        self.join = nn.Linear((1 + queries) * width, width)
        self.after = TokenBlock(tokens, width, 3 * width, 4)
        self.leave = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, features))

    def features(self, x: Tensor) -> Tensor:
        """(n, Z) to (n, T, width + queries (width + 1))."""
        grid = x.reshape(-1, *self.latent).transpose(0, 1)
        h = self.enter(grid) + self.position
        for block in self.blocks:
            h = block(h)
        h = self.norm(h).transpose(0, 1).float()
        if self.query is None:
            return h
        # One weight per sample and query, not per token: the set's members compete whole.
        logits = LIMIT * torch.tanh(self.query(h).float().mean(1, keepdim=True) / LIMIT)
        weights = logits.exp().expand(-1, h.shape[1], -1)
        weighted = (h[..., None, :] * weights[..., :, None]).flatten(2)
        return torch.cat([h, weighted, weights], -1)

    def read_out(self, mean: Tensor) -> Tensor:
        """(P, T, width + queries (width + 1)) to (P, T features)."""
        width = self.enter.out_features
        pooled = mean[..., :width]
        if self.queries:
            weighted, weights = mean[..., width:].split([self.queries * width, self.queries], -1)
            shares = weighted.unflatten(-1, (self.queries, width)) / weights[..., None]
            pooled = torch.cat([pooled, shares.flatten(2)], -1)
        h = self.after(self.join(pooled).transpose(0, 1))
        return self.leave(h).transpose(0, 1).flatten(1).float()
