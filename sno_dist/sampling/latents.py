"""Real samples in the operator's latent space, for baselines that model one distribution each.

They have the operator's autoencoder and the law of latents that its score is trained on: draws of
the autoencoder's posteriors, standardised.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sno_dist.config.schema import Config
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime.accelerator import autocast
from sno_dist.runtime.rng import generator
from sno_dist.sampling.plan import Unit, context_of, groups_of, label
from sno_dist.shards.manifest import Entry, evenly
from sno_dist.shards.reader import Reader

__all__ = ["LatentSpace"]

CHUNK = 1024

ASKED = 20
"""Seen distributions that tell the deviation within distributions."""


class LatentSpace:
    """Standardised latents of real samples, and the way back.

    Args:
        operator: On its device; its autoencoder and latent moments are used, its score is not.
        reader: Of the population.
        config: Its sections sampling and training, and the seed.
    """

    def __init__(self, operator: ScoreNeuralOperator, reader: Reader, config: Config) -> None:
        self._operator, self._reader, self._config = operator, reader, config

    @torch.no_grad()
    def posterior(self, entry: Entry, index: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """The autoencoder's means and deviations of a distribution's samples, (K, Z) each.

        Args:
            entry: The distribution.
            index: Which samples of the role `model`.
        """
        operator = self._operator
        samples = self._reader.take(entry, "model", index)
        parts = []
        with autocast(self._config.training.precision):
            for part in torch.from_numpy(samples).split(CHUNK):
                parts.append(operator.autoencoder.encode(operator.to_model(part)))
        mean, log_variance = (torch.cat(values) for values in zip(*parts, strict=True))
        scale = operator.latent_deviation
        return (mean - operator.latent_mean) / scale, (0.5 * log_variance).exp() / scale

    def contexts(self, unit: Unit) -> list[Tensor]:
        """One draw of each sample's posterior, for every group of every distribution in order.

        Returns:
            (K, Z) float64 each, in units of `deviation`.
        """
        groups = range(int(groups_of(self._config.sampling, unit.k)[-1]) + 1)
        return [
            self._drawn(entry, unit.k, group) / self.deviation
            for entry in unit.entries
            for group in groups
        ]

    @cached_property
    def deviation(self) -> Tensor:
        """The deviation within distributions, (Z,) float64, over some of the seen ones.

        Equation: v = sum (n - 1) s^2 / sum (n - 1), s^2 a distribution's own; 1 where that is 0.
        """
        seen = evenly(self._reader.manifest.split("seen"), ASKED)
        sets = [self._drawn(entry, None, 0) for entry in seen]
        squares = torch.stack([(own - own.mean(0)).square().sum(0) for own in sets]).sum(0)
        variance = squares / max(1, sum(len(own) - 1 for own in sets))
        return torch.where(variance > 0, variance, 1.0).sqrt()

    def in_data(self, z: Tensor) -> NDArray[np.generic]:
        """Samples from latents in units of `deviation`.

        Args:
            z: (entries, samples, Z) float64.

        Returns:
            (entries, samples, *shape), data units.
        """
        drawn = self.decode((z * self.deviation).flatten(0, 1).float())
        return drawn.reshape(*z.shape[:2], *drawn.shape[1:])

    @torch.no_grad()
    def decode(self, z: Tensor) -> NDArray[np.generic]:
        """Samples from standardised latents: (N, Z) float32 to (N, *shape), data units."""
        with autocast(self._config.training.precision):
            return self._operator.decode(z).cpu().numpy()

    def _drawn(self, entry: Entry, k: int | None, group: int) -> Tensor:
        seed = self._config.seed
        mean, deviation = self.posterior(entry, context_of(seed, entry, k, group))
        source = generator(seed, "latent", entry.name, label(k), group)
        normal = torch.from_numpy(source.standard_normal(mean.shape)).to(mean.device)
        return mean.double() + deviation.double() * normal
