"""Choosing guidance weights on seen distributions alone, where diversity is the real one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sno_dist.config.schema import Sampling
from sno_dist.errors import DataError
from sno_dist.judge.classifier import Classifier
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime import collectives
from sno_dist.runtime.progress import say
from sno_dist.runtime.share import share_of
from sno_dist.sampling.draw import Drawer
from sno_dist.sampling.plan import Unit, evenly, groups_of, label
from sno_dist.shards.manifest import Entry
from sno_dist.shards.reader import Reader

__all__ = ["Diversity", "Spreads", "crossing", "seen_diversity"]

DISTRIBUTIONS = 20

Diversity = dict[str, dict[float, float]]
"""K, as `plan.label` writes it -> guidance weight -> diversity."""


class Spreads:
    """Mean distances between two samples of one context set, generated over real held-out.

    Distances are of the judge's features, which tell a wrong class from variety; of the latent
    where there is no judge.

    Args:
        drawer: Draws the generated ones.
        operator: Encodes to the latent.
        reader: Of the population.
        judge: The classifier of images; none: the latent is looked at.
        sampling: The config's section.
    """

    def __init__(
        self,
        drawer: Drawer,
        operator: ScoreNeuralOperator,
        reader: Reader,
        judge: Classifier | None,
        sampling: Sampling,
    ) -> None:
        self._drawer, self._operator, self._reader = drawer, operator, reader
        self._judge, self._sampling = judge, sampling
        self._real: dict[str, float] = {}

    def entries(self, k: int | None) -> Sequence[Entry]:
        """The seen distributions that are looked at for a K: none where it has no diversity."""
        entries = self._reader.manifest.split("seen")
        if k is not None:
            if not self._operator.embeds or self._sampling.per_context < 2:
                return []
            entries = [entry for entry in entries if entry.count("model") >= k]
        return evenly(entries, DISTRIBUTIONS)

    def ratio(self, k: int | None, entry: Entry, weight: float) -> float:
        """Of one distribution's context sets of size K."""
        unit = Unit(split="seen", k=k, entries=[entry])
        generated = self._points(self._drawer(unit, weight)[0])
        if entry.name not in self._real:
            real = self._points(self._reader.all(entry, "reference"))
            self._real[entry.name] = _mean_distance(real)
        groups = groups_of(self._sampling, k)
        own = [generated[torch.from_numpy(groups == group)] for group in range(groups[-1] + 1)]
        spread = np.mean([_mean_distance(part) for part in own if len(part) > 1])
        return float(spread) / self._real[entry.name]

    def _points(self, samples: NDArray[np.generic]) -> Tensor:
        if self._judge is None:
            return self._operator.encode(torch.from_numpy(samples))
        return torch.from_numpy(self._judge.features(samples))


def seen_diversity(
    spreads: Spreads, ks: Sequence[int | None], weights: Sequence[float]
) -> Diversity:
    """Diversity of generated seen distributions by K, at guidance weights from the lowest up.

    Each is the mean of `Spreads.ratio` over at most DISTRIBUTIONS seen distributions, spread
    evenly. A K is done with once its diversity has fallen to 1, and is left out where no seen
    distribution is as large or a context set gets one sample alone.

    Raises:
        DataError: If a distribution has too few samples for a diversity, or equal ones.

    **Collective.** Pairs of K and distribution are dealt to ranks, weight after weight.
    """
    found: Diversity = {label(k): {} for k in ks if spreads.entries(k)}
    for weight in sorted(weights):
        left = [k for k in ks if label(k) in found and min(found[label(k)].values(), default=2) > 1]
        pairs = [(k, entry) for k in left for entry in spreads.entries(k)]
        if not pairs:
            break
        phase = f"trying guidance {weight:g}"
        ratios = torch.zeros(len(pairs), dtype=torch.float64)
        for index in share_of(range(len(pairs)), phase):
            ratios[index] = spreads.ratio(*pairs[index], weight)
        ratios = collectives.sum_over_ranks(ratios, phase)
        for k in left:
            own = [place for place, (of, _) in enumerate(pairs) if of == k]
            found[label(k)][weight] = _finite(float(ratios[own].mean()))
        told = (f"{found[label(k)][weight]:.3f} (K = {label(k).lstrip('k')})" for k in left)
        say(f"seen diversity with guidance {weight:g}: {', '.join(told)}")
    return found


def crossing(diversity: dict[float, float]) -> float:
    """The weight at which diversity falls through 1, linear between the weights tried.

    Where it does not cross, the end that is nearer to 1.
    """
    weights = sorted(diversity)
    for low, high in pairwise(weights):
        above, below = diversity[low] - 1, diversity[high] - 1
        if above >= 0 >= below and above > below:
            return round(low + (high - low) * above / (above - below), 3)
    return min((weights[0], weights[-1]), key=lambda w: abs(diversity[w] - 1))


def _mean_distance(points: Tensor) -> float:
    return float(torch.nn.functional.pdist(points.double()).mean())


def _finite(diversity: float) -> float:
    if not math.isfinite(diversity):
        raise DataError(
            "the guidance weight cannot be chosen by diversity",
            got=diversity,
            expected="two or more samples of each distribution, the real ones unequal",
            fix="set sampling.guidance to one weight, or raise sampling.samples or the source's "
            "reference samples",
        )
    return diversity
