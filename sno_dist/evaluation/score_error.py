"""How far the operator's score is from the exact one, where the data's density is known.

Samples judge the whole chain of embedding, score and solver; this judges the score alone, noise
level by noise level. The lattice family has a closed form, see `diffusion/uniform.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sno_dist.config.schema import Config, GaussianMixture, IdentityAutoencoder
from sno_dist.diffusion.schedule import Schedule
from sno_dist.diffusion.solvers import ScoreAt
from sno_dist.diffusion.uniform import UniformMixture
from sno_dist.errors import ConfigError
from sno_dist.evaluation.summary import SPLITS
from sno_dist.model.build import make_schedule
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime import collectives
from sno_dist.runtime.accelerator import device
from sno_dist.runtime.rng import generator
from sno_dist.runtime.share import share_of
from sno_dist.sampling.sample_set import SampleSet
from sno_dist.shards.manifest import Manifest, evenly
from sno_dist.shards.sources.gaussian_mixture import lower_corners
from sno_dist.training.checkpoint import open_checkpoint

__all__ = ["cell_side", "check_levels", "check_trained", "law_of", "relative_error", "score_error"]

MOST = 100
"""Distributions of each split, evenly taken."""

POINTS = 200
"""Of each distribution at each level."""

PHASE = "comparing scores"


def score_error(config: Config, manifest: Manifest, samples: SampleSet) -> dict[str, Any] | None:
    """The relative error of the operator's score at u from the whole context set.

    Networks run in float32, without guidance.

    Args:
        config: The run's; its checkpoint is opened.
        manifest: The population.
        samples: Their embeddings.

    Returns:
        "levels", sigma / alpha in cells; "seen" and "unseen", at each level the mean over
        distributions of `relative_error`, or None; "seen_mean" and "unseen_mean" over levels.
        None where the density is not known, or lies in another space than the score.

    Raises:
        ArtifactError: If the run's checkpoint is missing or damaged.
        Preempted: If the run was asked to stop.

    **Collective** where there is a figure.
    """
    if not _is_known(config):
        return None
    operator = open_checkpoint(config, manifest).operator().to(device())
    chosen = {
        split: evenly([e for e in manifest.split(split) if e.name in samples.embeddings], MOST)
        for split in SPLITS
    }
    comparer = _Comparer(config, manifest, samples, operator)
    errors = comparer.errors([entry.name for split in SPLITS for entry in chosen[split]])
    found: dict[str, Any] = {"levels": list(config.evaluation.score_levels)}
    for split, own in zip(SPLITS, errors.split([len(chosen[s]) for s in SPLITS]), strict=True):
        found[split] = own.mean(0).tolist() if len(own) else None
        found[f"{split}_mean"] = float(own.mean()) if len(own) else None
    return found


def check_trained(config: Config, manifest: Manifest) -> None:
    """Refuse, before hours of comparing samples, a checkpoint that `score_error` would refuse.

    Raises:
        ArtifactError: As `score_error`.
    """
    if _is_known(config):
        open_checkpoint(config, manifest)


def check_levels(config: Config, manifest: Manifest) -> None:
    """Refuse a level at which there is no score.

    Raises:
        ConfigError: If it is beyond the schedule.
    """
    if not _is_known(config):
        return
    schedule = make_schedule(config.model.schedule)
    for cells in config.evaluation.score_levels:
        level = torch.tensor(cells * cell_side(manifest), dtype=torch.float64)
        if (reached := float(schedule.time(level))) > 1:
            raise ConfigError(
                "a noise level is beyond the schedule",
                where="evaluation.score_levels",
                got=f"{cells:g} cells, reached at t = {reached:.3g}",
                expected="t at most 1",
            )


def _is_known(config: Config) -> bool:
    """Whether a score was asked for and the exact one is known, in the data's own coordinates."""
    section = config.model
    plain = section.transform.kind == "none" and isinstance(
        section.autoencoder, IdentityAutoencoder
    )
    known = isinstance(config.shards.source, GaussianMixture)
    return plain and known and bool(config.evaluation.score_levels)


def relative_error(
    score: ScoreAt,
    schedule: Schedule,
    law: UniformMixture,
    level: float,
    source: np.random.Generator,
) -> float:
    """E |s - s*|^2 / E |s*|^2 over POINTS of the noised law.

    Args:
        score: s(x, t), of float64 (N, D) and (N,).
        schedule: What it is the score of.
        law: The clean law, in the same space.
        level: sigma / alpha.
        source: Draws the points, on the CPU and in float64.
    """
    t = schedule.time(torch.full((POINTS,), level, dtype=torch.float64))
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    box = torch.from_numpy(source.integers(len(law.low), size=POINTS))
    place = torch.from_numpy(source.random((POINTS, law.low.shape[1])))
    noise = torch.from_numpy(source.standard_normal(place.shape))
    x = alpha[:, None] * torch.lerp(law.low[box], law.high[box], place) + sigma[:, None] * noise
    exact = law.score(x, alpha, sigma)
    return float((score(x, t) - exact).square().sum() / exact.square().sum())


def law_of(name: str, manifest: Manifest) -> UniformMixture:
    """A law of the lattice in model units."""
    shift = torch.tensor(manifest.shift, dtype=torch.float64)
    scale = torch.tensor(manifest.scale, dtype=torch.float64)
    corners = torch.from_numpy(lower_corners(name))
    return UniformMixture(low=(corners - shift) / scale, high=(corners + 1 - shift) / scale)


def cell_side(manifest: Manifest) -> float:
    """The side of a cell in model units: the geometric mean, since entries are scaled apart."""
    return math.exp(-float(np.log(manifest.scale).mean()))


class _Comparer:
    """Compares one operator's score with the exact ones, each rank its share of the laws."""

    def __init__(
        self,
        config: Config,
        manifest: Manifest,
        samples: SampleSet,
        operator: ScoreNeuralOperator,
    ) -> None:
        self._seed, self._manifest = config.seed, manifest
        self._samples, self._operator = samples, operator
        self._levels = [cells * cell_side(manifest) for cells in config.evaluation.score_levels]

    def errors(self, names: Sequence[str]) -> Tensor:
        """(len(names), levels) float64 on every rank."""
        errors = torch.zeros(len(names), len(self._levels), dtype=torch.float64)
        for index in share_of(range(len(names)), PHASE):
            errors[index] = torch.tensor(self._row(names[index]))
        return collectives.sum_over_ranks(errors, PHASE)

    @torch.no_grad()
    def _row(self, name: str) -> list[float]:
        operator, law = self._operator, law_of(name, self._manifest)
        u = torch.tensor(self._samples.embeddings[name], device=operator.null.device)

        def score(x: Tensor, t: Tensor) -> Tensor:
            return operator.score(u, x.to(u.device), t.to(u.device)).cpu()

        return [
            relative_error(
                score, operator.schedule, law, level, generator(self._seed, "exact", name, index)
            )
            for index, level in enumerate(self._levels)
        ]
