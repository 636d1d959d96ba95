"""Baselines that train nothing: real samples of some distribution, drawn again.

`nearest`: those of the seen distribution whose u is nearest, itself left out. `pooled`: those of
all seen distributions, a perfect model that is told nothing. `resample`: the context set's own.
`jitter`: the same with Gaussian noise, a kernel density estimate in free coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from torch import Tensor

from sno_dist.config.schema import Sampling
from sno_dist.diffusion.maps.transform import Transform
from sno_dist.runtime.rng import generator
from sno_dist.sampling.plan import Unit, context_of, groups_of, label
from sno_dist.shards.manifest import Entry
from sno_dist.shards.reader import Reader

__all__ = ["Baselines", "Embed", "kernel_widths"]

Embed = Callable[[Entry, int | None, int], Tensor]
"""A distribution, K and a group to u of that context set, (U,)."""

WIDTHS = np.geomspace(0.01, 1.0, 25)
LEFT_OUT = 256


class Baselines:
    """Draws the units of the baselines that train nothing.

    Args:
        reader: Of the population.
        sampling: The config's section.
        seed: Of contexts and choices.
        embed: U of a context set, as far as it is compared; asked where `nearest` is drawn.
        embeddings: Distribution -> u from its whole context set, (U,), as far as it is known.
        transform: To the coordinates in which `jitter` adds noise.
    """

    def __init__(
        self,
        reader: Reader,
        sampling: Sampling,
        seed: int,
        embed: Embed,
        embeddings: Mapping[str, NDArray[np.float32]],
        transform: Transform,
    ) -> None:
        self._reader, self._sampling, self._seed = reader, sampling, seed
        self._embed, self._embeddings, self._transform = embed, dict(embeddings), transform
        self._seen = reader.manifest.split("seen")

    def __call__(self, unit: Unit) -> NDArray[np.generic]:
        """The samples of a unit, (entries, samples, *shape) in data units."""
        return np.stack([self._samples(unit, entry) for entry in unit.entries])

    def _samples(self, unit: Unit, entry: Entry) -> NDArray[np.generic]:
        source = generator(self._seed, "baseline", entry.name, label(unit.k, unit.method))
        if unit.method == "pooled":
            return self._pooled(source)
        counts = np.bincount(groups_of(self._sampling, unit.k)).tolist()
        parts = [
            self._of_group(unit, entry, group, count, source) for group, count in enumerate(counts)
        ]
        return np.concatenate(parts)

    def _of_group(
        self, unit: Unit, entry: Entry, group: int, count: int, source: np.random.Generator
    ) -> NDArray[np.generic]:
        """The samples that are drawn for one context set, (count, *shape)."""
        if unit.method == "nearest":
            return self._again(self._nearest(entry, unit.k, group), count, source)
        index = context_of(self._seed, entry, unit.k, group)
        context = self._reader.take(entry, "model", index)
        chosen = source.integers(len(context), size=count)
        if unit.method == "jitter":
            return self._jittered(context, chosen, source)
        return context[chosen]

    def _jittered(
        self, context: NDArray[np.generic], chosen: NDArray[np.int64], source: np.random.Generator
    ) -> NDArray[np.generic]:
        free = self._transform.inverse(torch.from_numpy(context.astype(np.float64))).numpy()
        noise = kernel_widths(free) * source.standard_normal((len(chosen), *free.shape[1:]))
        noised = self._transform.forward(torch.from_numpy(free[chosen] + noise)).numpy()
        if context.dtype == np.uint8:
            noised = noised.round().clip(0, 255)
        return noised.astype(context.dtype)

    def _pooled(self, source: np.random.Generator) -> NDArray[np.generic]:
        ends = np.cumsum([entry.count("model") for entry in self._seen])
        index = source.integers(ends[-1], size=self._sampling.samples)
        owners = np.searchsorted(ends, index, side="right")
        starts = np.concatenate([[0], ends[:-1]])
        rows = [
            self._reader.take(self._seen[owner], "model", np.array([at - starts[owner]]))
            for owner, at in zip(owners, index, strict=True)
        ]
        return np.concatenate(rows)

    def _again(self, entry: Entry, count: int, source: np.random.Generator) -> NDArray[np.generic]:
        index = source.integers(entry.count("model"), size=count)
        return self._reader.take(entry, "model", index)

    def _nearest(self, entry: Entry, k: int | None, group: int) -> Entry:
        """The other seen distribution of nearest u."""
        u = self._whole(entry) if k is None else self._embed(entry, k, group).cpu().numpy()
        gaps = np.square(self._table - u).sum(1)
        gaps[[other.name == entry.name for other in self._seen]] = np.inf
        return self._seen[int(gaps.argmin())]

    @cached_property
    def _table(self) -> NDArray[np.float64]:
        """U of all seen distributions: (S, U)."""
        return np.stack([self._whole(entry) for entry in self._seen]).astype(np.float64)

    def _whole(self, entry: Entry) -> NDArray[np.float32]:
        """U of a distribution's whole context set, (U,)."""
        if entry.name not in self._embeddings:
            self._embeddings[entry.name] = self._embed(entry, None, 0).cpu().numpy()
        return self._embeddings[entry.name]


def kernel_widths(context: NDArray[np.generic]) -> NDArray[np.float64]:
    """Standard deviations of a product kernel density estimate, one for each entry of a sample.

    Equation: h_j = c s_j, s_j the deviation of the context's entry j; c maximises the likelihood
    of samples left out of the estimate (cross-validation), over the grid WIDTHS. A rule of n and
    D alone smears several modes into one, and noise of D entries over a thin set.

    Args:
        context: (K, *shape), any units.

    Returns:
        (*shape,), in the context's units; noughts where K = 1, which has no scale.
    """
    rows = context.reshape(len(context), -1).astype(np.float64)
    if len(rows) < 2:
        return np.zeros(context.shape[1:])
    deviations = rows.std(0, ddof=1)
    varying = deviations > 0
    if not varying.any():
        return np.zeros(context.shape[1:])
    scaled = rows[:, varying] / deviations[varying]
    left_out = scaled[:LEFT_OUT]
    squares = cdist(left_out, scaled, "sqeuclidean")
    np.fill_diagonal(squares, np.inf)
    nearest = squares.min(1)
    gaps = squares - nearest[:, None]
    likelihoods = [
        np.mean(np.log(np.exp(-gaps / (2 * c * c)).sum(1)) - nearest / (2 * c * c))
        - scaled.shape[1] * np.log(c)
        for c in WIDTHS
    ]
    return (WIDTHS[int(np.argmax(likelihoods))] * deviations).reshape(context.shape[1:])
