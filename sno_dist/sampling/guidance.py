"""Choosing the guidance weight on seen distributions alone, where diversity is the real one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime import collectives
from sno_dist.runtime.progress import Progress, say
from sno_dist.sampling.draw import Drawer
from sno_dist.sampling.plan import Unit
from sno_dist.shards.manifest import Entry
from sno_dist.shards.reader import Reader

__all__ = ["crossing", "seen_diversity"]

DISTRIBUTIONS = 32
PHASE = "choosing the guidance weight"


def seen_diversity(
    drawer: Drawer,
    operator: ScoreNeuralOperator,
    reader: Reader,
    weights: Sequence[float],
) -> dict[float, float]:
    """Diversity of generated seen distributions at each guidance weight, over that of real ones.

    Diversity is the mean distance between two samples of a distribution in the autoencoder's
    latent, generated over real held-out, averaged over up to DISTRIBUTIONS seen distributions.

    **Collective.** Pairs of (weight, distribution) are dealt to ranks.
    """
    entries = reader.manifest.split("seen")[:DISTRIBUTIONS]
    ratios = torch.zeros(len(weights), len(entries), dtype=torch.float64)
    mine = [divmod(i, len(entries)) for i in collectives.world().deal(ratios.numel())]
    with Progress(len(mine), PHASE) as progress:
        for row, column in mine:
            ratios[row, column] = _ratio(drawer, operator, reader, entries[column], weights[row])
            progress.advance()
    means = collectives.sum_over_ranks(ratios, PHASE).mean(1).tolist()
    found = dict(zip(weights, means, strict=True))
    say("seen diversity by guidance: " + ", ".join(f"{w:g}: {d:.3f}" for w, d in found.items()))
    return found


def crossing(diversity: dict[float, float]) -> float:
    """The weight at which diversity falls through 1, linear between the grid's weights.

    Where it does not cross, the end of the grid that is nearer to 1.
    """
    weights = sorted(diversity)
    for low, high in pairwise(weights):
        above, below = diversity[low] - 1, diversity[high] - 1
        if above >= 0 >= below and above > below:
            return round(low + (high - low) * above / (above - below), 3)
    return min((weights[0], weights[-1]), key=lambda w: abs(diversity[w] - 1))


def _ratio(
    drawer: Drawer,
    operator: ScoreNeuralOperator,
    reader: Reader,
    entry: Entry,
    weight: float,
) -> float:
    unit = Unit(split="seen", k=None, entries=[entry])
    generated = drawer(unit, weight)[0]
    real = reader.all(entry, "reference")
    return _spread(operator, generated) / _spread(operator, real)


def _spread(operator: ScoreNeuralOperator, samples: NDArray[np.generic]) -> float:
    latent: Tensor = operator.encode(torch.from_numpy(samples)).double()
    return float(torch.nn.functional.pdist(latent).mean())
