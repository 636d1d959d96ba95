"""Drawing the samples of a unit: contexts to embeddings, noise streams, solver, acceptance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sno_dist.config.schema import Sampling
from sno_dist.diffusion.sampler import sampler_of
from sno_dist.diffusion.solvers import Noise
from sno_dist.model.acceptance import candidates, departures, nearest
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime.accelerator import autocast
from sno_dist.runtime.precision import Precision
from sno_dist.runtime.rng import generator, normals
from sno_dist.sampling.plan import Unit, context_of, groups_of, label
from sno_dist.shards.manifest import Entry
from sno_dist.shards.reader import Reader

__all__ = ["Drawer", "noise_of", "streams_of"]


def streams_of(
    seed: int, unit: Unit, entries: Sequence[Entry], count: int
) -> list[np.random.Generator]:
    """The streams of `count` samples of each of some of a unit's distributions, in order.

    Sample i of a distribution has one of its own, keyed by seed, name, label and i.
    """
    return [
        generator(seed, "sample", entry.name, label(unit.k, unit.method), index)
        for entry in entries
        for index in range(count)
    ]


def noise_of(streams: Sequence[np.random.Generator], dims: int) -> Noise:
    """Standard normals of each stream: a function to the next (streams, dims) float32."""
    return lambda: torch.from_numpy(normals(streams, (dims,)))


class Drawer:
    """Draws units with one operator.

    Args:
        operator: On its device, in evaluation mode.
        reader: Of the population.
        sampling: The config's section.
        seed: Of contexts and noise.
        precision: Of the networks; the solver's state is float32 in any case.
    """

    def __init__(
        self,
        operator: ScoreNeuralOperator,
        reader: Reader,
        sampling: Sampling,
        seed: int,
        precision: Precision = "fp32",
    ) -> None:
        self._operator, self._reader = operator, reader
        self._sampling, self._seed = sampling, seed
        self._precision: Precision = precision
        self._sampler = sampler_of(sampling)

    def __call__(self, unit: Unit, guidance: float) -> NDArray[np.generic]:
        """The samples of a unit, (entries, samples, *shape) in data units."""
        acceptance = self._sampling.acceptance
        kept = np.bincount(groups_of(self._sampling, unit.k)).tolist()
        tried = [candidates(count, acceptance) for count in kept]
        streams = streams_of(self._seed, unit, unit.entries, sum(tried))
        dims, size = self._operator.autoencoder.size, self._sampling.batch
        parts, far = [], []
        with autocast(self._precision):
            u = torch.cat([self._embeddings(entry, unit.k, tried) for entry in unit.entries])
            # one distribution's samples may be more than are integrated together
            for first in range(0, len(streams), size):
                noise = noise_of(streams[first : first + size], dims)
                own = u[first : first + size]
                parts.append(self._operator.draw(own, noise, self._sampler, guidance))
                if acceptance < 1:
                    far.append(departures(self._operator, own, parts[-1]))
        drawn = torch.cat(parts)
        if acceptance < 1:
            drawn = drawn[_accepted(torch.cat(far), tried, kept)]
        return drawn.reshape(len(unit.entries), -1, *drawn.shape[1:]).cpu().numpy()

    def _embeddings(self, entry: Entry, k: int | None, tried: Sequence[int]) -> Tensor:
        """U for each candidate of one distribution's context sets, (sum of tried, U)."""
        rows = [self.embed(entry, k, group) for group in range(len(tried))]
        return torch.stack(rows).repeat_interleave(torch.tensor(tried, device=rows[0].device), 0)

    def embed(self, entry: Entry, k: int | None = None, group: int = 0) -> Tensor:
        """U of one context set of a distribution, (U,)."""
        operator = self._operator
        if not operator.embeds:
            row = operator.seen_embedding(entry.name)
            assert row is not None, "an embedder that cannot embed has a table"
            return row
        index = context_of(self._seed, entry, k, group)
        return operator.embed(torch.from_numpy(self._reader.take(entry, "model", index)))


def _accepted(far: Tensor, tried: Sequence[int], kept: Sequence[int]) -> Tensor:
    """The places that are kept, of candidates context set after context set.

    Args:
        far: (entries x sum of tried,) how far each is from its context set's u.
        tried: Candidates of each context set of a distribution.
        kept: Of them, how many are kept.
    """
    places, first, entries = [], 0, len(far) // sum(tried)
    for own, count in zip(far.split([*tried] * entries), [*kept] * entries, strict=True):
        places.append(first + nearest(own, count))
        first += len(own)
    return torch.cat(places)
