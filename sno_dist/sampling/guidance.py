"""Choosing the guidance weight on seen distributions alone, where diversity is the real one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sno_dist.errors import DataError
from sno_dist.judge.classifier import Classifier
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime import collectives
from sno_dist.runtime.progress import say
from sno_dist.runtime.share import share_of
from sno_dist.sampling.draw import Drawer
from sno_dist.sampling.plan import Unit, evenly
from sno_dist.shards.reader import Reader

__all__ = ["crossing", "seen_diversity"]

DISTRIBUTIONS = 20
PHASE = "choosing the guidance weight"


def seen_diversity(
    drawer: Drawer,
    operator: ScoreNeuralOperator,
    reader: Reader,
    judge: Classifier | None,
    weights: Sequence[float],
) -> dict[float, float]:
    """Diversity of generated seen distributions at each guidance weight, over that of real ones.

    Diversity is the mean distance between two samples of a distribution, generated over real
    held-out, averaged over DISTRIBUTIONS seen ones, spread evenly. Distances are of the judge's
    features, which tell a wrong class from variety; of the latent where there is no judge.

    Raises:
        DataError: If a distribution has too few samples for a diversity, or equal ones.

    **Collective.** Pairs of (weight, distribution) are dealt to ranks.
    """
    entries = evenly(reader.manifest.split("seen"), DISTRIBUTIONS)
    spread = partial(_spread, operator, judge)
    ratios = torch.zeros(len(weights), len(entries), dtype=torch.float64)
    for index in share_of(range(ratios.numel()), PHASE):
        row, column = divmod(index, len(entries))
        unit = Unit(split="seen", k=None, entries=[entries[column]])
        generated = spread(drawer(unit, weights[row])[0])
        real = spread(reader.all(entries[column], "reference"))
        ratios[row, column] = generated / real
    means = collectives.sum_over_ranks(ratios, PHASE).mean(1).tolist()
    if not all(map(math.isfinite, means)):
        raise DataError(
            "the guidance weight cannot be chosen by diversity",
            got=means,
            expected="two or more samples of each distribution, the real ones unequal",
            fix="set sampling.guidance to one weight, or raise sampling.samples or the source's "
            "reference samples",
        )
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


def _spread(
    operator: ScoreNeuralOperator, judge: Classifier | None, samples: NDArray[np.generic]
) -> float:
    if judge is None:
        points: Tensor = operator.encode(torch.from_numpy(samples))
    else:
        points = torch.from_numpy(judge.features(samples))
    return float(torch.nn.functional.pdist(points.double()).mean())
