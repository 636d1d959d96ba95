"""The baseline of one Wasserstein-proximal kernel model per context set.

A mixture of Gaussians in the operator's latent space, from which samples are drawn without a
solver. Of other distributions it knows the deviation within them, entry by entry: the unit of its
latents, in which small sets are shrunk to variance 1. It is all that one sample's law can rest on.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sno_dist.config.schema import Config, KernelModel
from sno_dist.diffusion.gaussian_mixture import GaussianMixture
from sno_dist.errors import ConfigError
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime.rng import generator, normals
from sno_dist.sampling.draw import streams_of
from sno_dist.sampling.latents import LatentSpace
from sno_dist.sampling.plan import Unit, label
from sno_dist.score.kernel.model import KernelFit, fit_kernel_models
from sno_dist.shards.reader import Reader

__all__ = ["KernelModels"]

FULL = 32
"""Entries of the largest latent whose covariances are full where the config leaves it open."""

VALUES = 1 << 28
"""At most, of a set's samples times their products of two entries: 2 GiB."""


class KernelModels:
    """Fits the models of all of a unit's context sets in one call, and draws from each.

    Args:
        operator: On its device; its autoencoder and latent space are used, its score is not.
        reader: Of the population.
        config: Its sections sampling and training, and the seed.

    Raises:
        ConfigError: If covariances of low rank have as many directions as the latent has entries,
            or those that are not diagonal do not fit the memory.
    """

    def __init__(self, operator: ScoreNeuralOperator, reader: Reader, config: Config) -> None:
        self._config = config
        self._space = LatentSpace(operator, reader, config)
        self._how = _fit(config.sampling.kernel, operator.autoencoder.size)

    def __call__(self, unit: Unit) -> NDArray[np.generic]:
        """The samples of a unit, (entries, samples, *shape) in data units.

        What is random in a fit is of a stream keyed by seed, name, K and group.
        """
        contexts = self._space.contexts(unit)
        groups = len(contexts) // len(unit.entries)
        sources = [
            generator(self._config.seed, "kernel", entry.name, label(unit.k), group)
            for entry in unit.entries
            for group in range(groups)
        ]
        sets = [self._some(own, source) for own, source in zip(contexts, sources, strict=True)]
        mixture = fit_kernel_models(sets, sources, self._how, pooled=1.0)
        return self._space.in_data(self._drawn(unit, mixture))

    def _some(self, context: Tensor, source: np.random.Generator) -> Tensor:
        """At most the configured number of a set's samples, at random."""
        most = self._config.sampling.kernel.largest
        if len(context) <= most:
            return context
        return context[torch.from_numpy(source.choice(len(context), most, replace=False))]

    def _drawn(self, unit: Unit, mixture: GaussianMixture) -> Tensor:
        """(entries, samples, Z): of each group's mixture the samples that are drawn for it."""
        entries, count = len(unit.entries), self._config.sampling.samples
        groups = len(mixture.log_weights) // entries
        each = count if groups == 1 else self._config.sampling.per_context
        streams = streams_of(self._config.seed, unit, unit.entries, count)
        uniform = torch.tensor([stream.random() for stream in streams], dtype=torch.float64)
        normal = torch.from_numpy(normals(streams, (mixture.entries,)))

        def by_set(values: Tensor) -> Tensor:
            """(entries * count, ...) to (entries * groups, each, ...), the last ones padded."""
            padded = values.new_zeros(entries, groups * each, *values.shape[1:])
            padded[:, :count] = values.unflatten(0, (entries, count))
            return padded.unflatten(1, (groups, each)).flatten(0, 1).to(mixture.log_weights)

        z = mixture.sample(by_set(uniform), by_set(normal))
        return z.unflatten(0, (entries, groups)).flatten(1, 2)[:, :count]


def _fit(section: KernelModel, dims: int) -> KernelFit:
    form = section.form or ("full" if dims <= FULL else "diagonal")
    if form == "low_rank" and section.rank >= dims:
        raise ConfigError(
            "the kernel model's covariances have as many directions as the latent has entries",
            where="sampling.kernel.rank",
            got=f"rank {section.rank} in a latent of {dims} entries",
            expected=f"fewer than {dims}",
            fix="lower the rank, or choose sampling.kernel.form=full",
        )
    how = KernelFit(
        method=section.method,
        form=form,
        rank=section.rank,
        per_centre=section.per_centre,
        kernels=section.kernels,
    )
    if form != "diagonal" and how.members * section.largest * dims**2 > VALUES:
        raise ConfigError(
            "the kernel model's covariances need too much memory",
            where="sampling.kernel.form",
            got=f"{form}, from {section.largest} samples of {dims} entries",
            expected=f"at most {VALUES // (how.members * dims**2)} samples",
            fix="choose sampling.kernel.form=diagonal, or lower sampling.kernel.largest",
        )
    return how
