"""The baseline of one score model per distribution, trained on its samples and on nothing else.

It has the operator's autoencoder, latent space, schedule and preconditioning, is trained by
denoising, and has no u: what it leaves to be desired, or has over the operator, is what is shared
between distributions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sno_dist.config.schema import Baseline, Config, Finetuned, Individual, Model
from sno_dist.diffusion.sampler import sampler_of
from sno_dist.errors import RunError
from sno_dist.model.build import check_width, make_network
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime import preemption
from sno_dist.runtime.accelerator import autocast
from sno_dist.runtime.progress import Progress
from sno_dist.runtime.rng import generator, normals
from sno_dist.sampling.draw import noise_of, streams_of
from sno_dist.sampling.latents import LatentSpace
from sno_dist.sampling.plan import Unit
from sno_dist.sampling.stack import ScoreStack
from sno_dist.score.guidance import guided
from sno_dist.score.of_one import ScoreOfOne
from sno_dist.score.preconditioned import PreconditionedScore
from sno_dist.shards.manifest import Entry
from sno_dist.shards.reader import Reader

__all__ = ["IndividualModels"]


class IndividualModels:
    """Trains the models of a unit's distributions side by side, and draws from each.

    Args:
        operator: On its device; its autoencoder and latent space are used, its score is not.
        reader: Of the population.
        config: Its sections sampling and training, and the seed.

    Raises:
        ConfigError: If sampling.individual.network is too narrow for the latent.
    """

    method: ClassVar[Baseline] = "individual"

    def __init__(self, operator: ScoreNeuralOperator, reader: Reader, config: Config) -> None:
        self._operator, self._config = operator, config
        self._space = LatentSpace(operator, reader, config)
        self._section: Individual | Finetuned = config.sampling.individual
        self._device = operator.null.device
        if "individual" in config.sampling.baselines:
            check_width(self._alone(), operator.autoencoder.size)

    def __call__(self, unit: Unit) -> NDArray[np.generic] | None:
        """The samples of a unit, (entries, samples, *shape) in data units.

        Everything random in a distribution's training is of one stream, keyed by seed and name.

        Returns:
            None if this process was asked to stop before training ended.

        Raises:
            RunError: If a loss or a gradient is not finite.
        """
        seed, own = self._config.seed, [] if unit.k is None else [unit.k]
        sources = [generator(seed, self.method, entry.name, *own) for entry in unit.entries]
        models = self._models(unit, sources)
        stack = ScoreStack(models, self._config.training, self._section)
        if not self._train(stack, unit, sources):
            return None
        return np.stack([self._draw(stack, unit, index) for index in range(len(unit.entries))])

    def _models(
        self, unit: Unit, sources: Sequence[np.random.Generator]
    ) -> Sequence[PreconditionedScore | ScoreOfOne]:
        """What is trained, as it is at the beginning."""
        del unit
        return [self._fresh(source) for source in sources]

    def _index(self, entry: Entry, k: int | None) -> NDArray[np.int64]:
        """Which samples a model is trained on."""
        del k
        return np.arange(entry.count("model"))

    def _fresh(self, source: np.random.Generator) -> PreconditionedScore:
        """A model with initial weights of its own."""
        model = self._alone()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(source.integers(2**62)))
            module = make_network(model, self._operator.autoencoder.layout, (1, 1))
        score = PreconditionedScore(module, self._operator.schedule, model.prediction)
        return score.to(self._device)

    def _alone(self) -> Model:
        """The operator's model, with the network of one distribution's."""
        own, of_all = self._config.sampling.individual.network, self._operator.spec.model
        return of_all if own is None else of_all.model_copy(update={"network": own})

    def _train(self, stack: ScoreStack, unit: Unit, sources: Sequence[np.random.Generator]) -> bool:
        """Whether training came to its end."""
        latents = _Latents(
            [self._space.posterior(entry, self._index(entry, unit.k)) for entry in unit.entries]
        )
        phase = f"{self.method} models of {len(unit.entries)} {unit.split} distributions"
        with Progress(self._section.steps, phase) as progress:
            for number in range(self._section.steps):
                if preemption.requested():
                    return False
                outcome = stack.step(number, *latents.batch(sources, self._section.batch))
                _check(unit, number, outcome)
                progress.advance(note=f"loss {float(outcome[0].mean()):.3f}")
        return True

    @torch.no_grad()
    def _draw(self, stack: ScoreStack, unit: Unit, index: int) -> NDArray[np.generic]:
        sampling, model = self._config.sampling, stack.averaged(index)
        streams = streams_of(self._config.seed, unit, [unit.entries[index]], sampling.samples)
        parts = [
            self._integrated(model, streams[first : first + sampling.batch])
            for first in range(0, len(streams), sampling.batch)
        ]
        return self._space.decode(torch.cat(parts))

    def _integrated(
        self, model: PreconditionedScore | ScoreOfOne, streams: Sequence[np.random.Generator]
    ) -> Tensor:
        """One latent for each stream, (N, Z)."""
        noise = noise_of(streams, self._operator.autoencoder.size)
        u = torch.zeros(len(streams), 1, device=self._device)
        score, sampler = guided(model, u, u[0], 1.0), sampler_of(self._config.sampling)
        with autocast(self._config.training.precision):
            return sampler(score, self._operator.schedule, lambda: noise().to(self._device))


class _Latents:
    """The training samples of G distributions, and batches of them.

    Args:
        posteriors: Of each distribution the means and deviations of its latents, (n, Z) both.
    """

    def __init__(self, posteriors: Sequence[tuple[Tensor, Tensor]]) -> None:
        self._counts = [len(mean) for mean, _ in posteriors]
        self._starts = np.cumsum([0, *self._counts[:-1]])
        self._mean, self._deviation = (torch.cat(part) for part in zip(*posteriors, strict=True))

    def batch(
        self, sources: Sequence[np.random.Generator], size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The next batch of each distribution from its own source.

        Returns:
            Latents (G, B, Z), drawn from the posteriors; the diffusion's noise (G, B, Z);
            uniforms on [0, 1), (G, B).
        """
        device, dims = self._mean.device, self._mean.shape[1]
        rows = [
            start + source.integers(count, size=size)
            for source, start, count in zip(sources, self._starts, self._counts, strict=True)
        ]
        uniform = [source.random(size, dtype=np.float32) for source in sources]
        normal = torch.from_numpy(normals(sources, (2, size, dims))).to(device)
        index = torch.from_numpy(np.stack(rows)).to(device)
        z = self._mean[index] + self._deviation[index] * normal[:, 0]
        return z, normal[:, 1], torch.from_numpy(np.stack(uniform)).to(device)


def _check(unit: Unit, number: int, outcome: Tensor) -> None:
    finite = outcome.isfinite().all(0).tolist()
    spoilt = [entry.name for entry, fine in zip(unit.entries, finite, strict=True) if not fine]
    if spoilt:
        raise RunError(
            f"the loss or gradient of one of the {unit.method} models is not finite at step "
            f"{number}",
            where=f"{unit.split} distributions {unit.entries[0].name} to {unit.entries[-1].name}",
            got=f"{len(spoilt)} of {len(finite)}, the first {spoilt[0]}",
            fix=f"lower sampling.{unit.method}.learning_rate",
        )
