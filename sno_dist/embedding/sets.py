"""The samples of the seen distributions, streamed from the shards one distribution at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sno_dist.diffusion.maps.factory import transform_of
from sno_dist.shards.manifest import Entry, Manifest
from sno_dist.shards.reader import Reader

__all__ = ["SampleSets"]


class SampleSets:
    """N sets of samples in model units, read when they are asked for.

    Args:
        reader: Of the population.
        entries: The distributions.
        limit: Samples of each at most, the first of the role `model`; none: all.
        device: Where they are put.
    """

    def __init__(
        self, reader: Reader, entries: Sequence[Entry], limit: int | None, device: torch.device
    ) -> None:
        self._reader, self._entries, self.device = reader, entries, device
        manifest: Manifest = reader.manifest
        self._shift, self._scale = np.asarray(manifest.shift), np.asarray(manifest.scale)
        counts = [entry.count("model") for entry in entries]
        self.lengths = [count if limit is None else min(count, limit) for count in counts]
        self._transform = transform_of(manifest.transform, manifest.shape)
        self.dims = int(np.prod(self._transform.free))

    def __len__(self) -> int:
        """How many sets."""
        return len(self._entries)

    def take(self, item: int, count: int | None = None) -> Tensor:
        """The first `count` samples of one set, or all of it: (n, D) float64."""
        size = self.lengths[item] if count is None else min(count, self.lengths[item])
        raw = self._reader.take(self._entries[item], "model", np.arange(size))
        free = self._transform.inverse(torch.from_numpy(raw.astype(np.float64))).numpy()
        rows = (free - self._shift) / self._scale
        return torch.from_numpy(rows.reshape(size, -1)).to(self.device)

    def panel(self, items: Sequence[int]) -> Tensor:
        """Several sets laid end to end: (sum of n, D)."""
        return torch.cat([self.take(item) for item in items])
