"""The baseline of operator-informed score matching on each context set.

A score in closed form from means of eigenfunctions, in the operator's latent space, integrated by
the operator's solver on its schedule. Each set is whitened first, so that one basis serves them
all. Small sets tell no more than a Gaussian, whose covariance is shrunk to that within seen
distributions: it is drawn from as it is. In more than three dimensions, where eigenfunctions of all
axes together are too many, the whitened axes are taken to be independent: each is a law of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sno_dist.config.schema import Config, Oism
from sno_dist.diffusion.axes import Circle, OrnsteinUhlenbeck
from sno_dist.diffusion.eigenfunctions import up_to
from sno_dist.diffusion.sampler import sampler_of
from sno_dist.errors import RunError
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.sampling.draw import noise_of, streams_of
from sno_dist.sampling.latents import LatentSpace
from sno_dist.sampling.plan import Unit, groups_of
from sno_dist.score.oism import Fit, OperatorInformed
from sno_dist.shards.reader import Reader

__all__ = ["OismModels"]

TOGETHER = 3
"""Dimensions up to which a law's axes share eigenfunctions."""

ORDERS = {"torus": (32, 8, 4, 8), "ou": (2, 2, 2, 2)}
"""Orders in 1, 2 and 3 dimensions and of axes apart, where the config leaves them open."""

FUNCTIONS = 1000
"""Eigenfunctions at most: a solve of that size for each of 128 noise levels and each set."""

INNER = 0.8
"""The share of the period in which all of a set's samples lie, lest the farthest wrap around."""


class OismModels:
    """Fits the scores of all of a unit's context sets in one call, and draws from each.

    Args:
        operator: On its device; its autoencoder, latent space and schedule are used.
        reader: Of the population.
        config: Its sections sampling and training, and the seed.

    Raises:
        ConfigError: If the order asks for too many eigenfunctions.
    """

    def __init__(self, operator: ScoreNeuralOperator, reader: Reader, config: Config) -> None:
        self._operator, self._config = operator, config
        self._space = LatentSpace(operator, reader, config)
        self._model = _model(config.sampling.oism, operator.autoencoder.size)

    def __call__(self, unit: Unit) -> NDArray[np.generic]:
        """The samples of a unit, (entries, samples, *shape) in data units.

        Raises:
            RunError: If a sample is not finite.
        """
        entries, count = len(unit.entries), self._config.sampling.samples
        contexts = self._space.contexts(unit)
        groups = len(contexts) // entries
        law = np.arange(entries)[:, None] * groups + groups_of(self._config.sampling, unit.k)
        streams = streams_of(self._config.seed, unit, unit.entries, count)
        small = np.array([len(own) < self._config.sampling.oism.smallest for own in contexts])
        z = contexts[0].new_zeros(entries * count, contexts[0].shape[1])
        for draw, chosen in ((self._gaussian, small), (self._informed, ~small)):
            rows = np.flatnonzero(chosen[law.ravel()])
            if len(rows):
                sets = [own for own, taken in zip(contexts, chosen, strict=True) if taken]
                own_law = (np.cumsum(chosen) - 1)[law.ravel()[rows]]
                own_streams = [streams[row] for row in rows]
                z[torch.from_numpy(rows)] = draw(sets, own_law, own_streams)
        _check(unit, z)
        return self._space.in_data(z.unflatten(0, (entries, count)))

    def _gaussian(
        self,
        sets: Sequence[Tensor],
        law: NDArray[np.int64],
        streams: Sequence[np.random.Generator],
    ) -> Tensor:
        """As `_informed`, from a Gaussian that so many entries' worth of samples shrink."""
        white = [_Whitened.of(own, own.shape[1]) for own in sets]
        noise = noise_of(streams, sets[0].shape[1])().to(sets[0])
        return _placed(white, torch.from_numpy(law).to(noise.device), noise)

    @torch.no_grad()
    def _informed(
        self,
        sets: Sequence[Tensor],
        law: NDArray[np.int64],
        streams: Sequence[np.random.Generator],
    ) -> Tensor:
        """One sample for each stream, (N, Z) float64, of the set that `law`, (N,), tells."""
        section, model = self._config.sampling.oism, self._model
        axis = model.basis.axis
        white = [_Whitened.of(own, 1) for own in sets]
        if isinstance(axis, Circle):
            white = [own.within(0.5 * INNER * axis.period) for own in white]
        dims, size = model.basis.dims, white[0].samples.shape[1]
        apart = size // dims
        lengths = torch.tensor([len(own) for own in sets]).repeat_interleave(apart)
        laws = [part for own in white for part in own.samples.split(dims, 1)]
        moments = model.measured.moments(torch.cat(laws), lengths)
        fit = Fit(model=model, moments=moments, shrinkage=section.shrinkage, ridge=section.ridge)
        schedule = self._operator.schedule
        table, index = fit.tabulate(schedule), torch.from_numpy(law).to(white[0].mean.device)
        rows = (index[:, None] * apart + torch.arange(apart).to(index)).flatten()
        noise = noise_of(streams, size)

        def score(x: Tensor, t: Tensor) -> Tensor:
            return table(x.reshape(-1, dims), t.repeat_interleave(apart), rows).reshape(x.shape)

        sampler = sampler_of(self._config.sampling)
        y = sampler(score, schedule, lambda: noise().to(index.device)).double()
        if isinstance(axis, Circle):
            y = y - axis.period * (y / axis.period).round()
        return _placed(white, index, y)


@dataclass(frozen=True, slots=True)
class _Whitened:
    """A context set in units of its own: z = mean + factor y.

    Args:
        samples: (K, Z) y.
        mean: (Z,).
        factor: (Z, Z) lower triangular.
    """

    samples: Tensor
    mean: Tensor
    factor: Tensor

    @classmethod
    def of(cls, z: Tensor, prior: int) -> _Whitened:
        """Whiten (K, Z) samples, in units of the deviation within distributions.

        Equation: factor factor' = (1 + 1 / K) ((K - 1) S + prior I) / (K - 1 + prior), S the
        unbiased covariance: of one sample 2 I, as of the difference of two, of many S.
        """
        count, mean = len(z), z.mean(0)
        gap = z - mean
        covariance = gap.T @ gap + prior * torch.eye(z.shape[1]).to(z)
        factor = torch.linalg.cholesky((1 + 1 / count) / (count - 1 + prior) * covariance)
        return cls(torch.linalg.solve_triangular(factor, gap.T, upper=False).T, mean, factor)

    def within(self, reach: float) -> _Whitened:
        """With every axis of y in units in which none of its samples is farther than `reach`."""
        beyond = (self.samples.abs().amax(0) / reach).clamp_min(1)
        return _Whitened(self.samples / beyond, self.mean, self.factor * beyond)


def _placed(white: Sequence[_Whitened], law: Tensor, y: Tensor) -> Tensor:
    """(N, Z) y in the coordinates of each row's set."""
    mean = torch.stack([own.mean for own in white])[law]
    factor = torch.stack([own.factor for own in white])[law]
    return mean + torch.einsum("nij,nj->ni", factor, y)


def _model(section: Oism, size: int) -> OperatorInformed:
    """In as many dimensions as share eigenfunctions: all of a latent's `size`, or 1."""
    dims = size if size <= TOGETHER else 1
    torus = section.noising == "torus"
    axis = Circle(section.period) if torus else OrnsteinUhlenbeck()
    order = section.order or ORDERS[section.noising][min(size, TOGETHER + 1) - 1]
    return OperatorInformed(up_to(axis, dims, order, most=FUNCTIONS, where="sampling.oism.order"))


def _check(unit: Unit, z: Tensor) -> None:
    finite = z.isfinite().all(1)
    if not bool(finite.all()):
        raise RunError(
            "samples of operator-informed score matching are not finite",
            where=f"{unit.split} distributions {unit.entries[0].name} to {unit.entries[-1].name}",
            got=f"{int((~finite).sum())} of {len(z)}",
            fix="choose sampling.oism.noising=torus, or a lower order",
        )
