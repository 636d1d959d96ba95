"""Choosing guidance weights on seen distributions alone, where diversity is the real one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sno_dist.config.schema import Config
from sno_dist.embedding.pairs import mean_distance
from sno_dist.errors import DataError
from sno_dist.judge.classifier import Classifier
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime import collectives
from sno_dist.runtime.progress import say
from sno_dist.runtime.share import share_of
from sno_dist.sampling.draw import Drawer
from sno_dist.sampling.plan import Unit, groups_of, size_label
from sno_dist.shards.manifest import Entry, evenly
from sno_dist.shards.reader import Reader

__all__ = ["Calibration", "SeenDiversity", "beyond", "calibrate", "crossing"]

DISTRIBUTIONS, SAMPLES = 100, 60
"""At most, and of each: diversity differs by a quarter from one distribution to the next, so that
many say more than many samples of a few; a sample of a wrong class is rare and weighs much."""
CHUNK = 1024
"""Samples encoded at a time."""
NEAR, REFINEMENTS = 0.01, 3
"""Distance from 1 that is left alone, and weights beside the grid's that a K is tried with."""

Calibration = dict[str, dict[float, float]]
"""K, as `plan.size_label` writes it -> guidance weight -> diversity."""


class SeenDiversity:
    """How diverse the samples of seen distributions are, by K and guidance weight.

    Diversity is the mean distance between two samples drawn for one context set, generated over
    real held-out. Distances are of the judge's features, which tell a wrong class from variety; of
    the latent where there is no judge.

    Args:
        operator: On its device, in evaluation mode.
        reader: Of the population.
        judge: The classifier of images; none: the latent is looked at.
        config: Its sections sampling and training, and the seed.
    """

    def __init__(
        self,
        operator: ScoreNeuralOperator,
        reader: Reader,
        judge: Classifier | None,
        config: Config,
    ) -> None:
        self._operator, self._reader, self._judge = operator, reader, judge
        samples = min(SAMPLES, config.sampling.samples)
        self._sampling = config.sampling.model_copy(update={"samples": samples})
        self._drawer = Drawer(
            operator, reader, self._sampling, config.seed, config.training.precision
        )
        self._real: dict[str, float] = {}

    def units(self, k: int | None) -> list[Unit]:
        """What is drawn for a K: at most DISTRIBUTIONS, evenly spread over those of that size.

        None where the K has no diversity: no distribution is as large, or one sample is drawn for
        each context set.

        Raises:
            DataError: If too few real samples are held out to tell how diverse they are.
        """
        if k is not None and (not self._operator.embeds or self._sampling.per_context < 2):
            return []
        large = [e for e in self._reader.manifest.split("seen") if e.count("model") >= (k or 0)]
        entries = evenly(large, DISTRIBUTIONS)
        _check_held_out(entries)
        width = max(1, self._sampling.batch // self._sampling.samples)
        return [
            Unit(split="seen", k=k, entries=entries[first : first + width])
            for first in range(0, len(entries), width)
        ]

    def of(self, unit: Unit, weight: float) -> list[float]:
        """The diversities of a unit's distributions at a weight; NaN where real samples are equal.

        Args:
            unit: What is drawn.
            weight: Of guidance.
        """
        drawn = self._drawer(unit, weight)
        return [self._of(e, unit.k, own) for e, own in zip(unit.entries, drawn, strict=True)]

    def _of(self, entry: Entry, k: int | None, samples: NDArray[np.generic]) -> float:
        if entry.name not in self._real:
            real = self._points(self._reader.all(entry, "reference"))
            self._real[entry.name] = mean_distance(real)
        points = self._points(samples)
        groups = torch.from_numpy(groups_of(self._sampling, k))
        sets = [points[groups == group] for group in range(int(groups[-1]) + 1)]
        spread = np.mean([mean_distance(own) for own in sets if len(own) > 1])
        return float(spread) / (self._real[entry.name] or math.nan)

    def _points(self, samples: NDArray[np.generic]) -> Tensor:
        if self._judge is None:
            parts = torch.from_numpy(samples).split(CHUNK)
            return torch.cat([self._operator.encode(part) for part in parts])
        return torch.from_numpy(self._judge.features(samples))


def _check_held_out(entries: Sequence[Entry]) -> None:
    for entry in entries:
        if (count := entry.count("reference")) < 2:
            raise DataError(
                "guidance is chosen by how diverse real samples are, and too few are held out",
                where=f"distribution {entry.name}, role reference",
                got=count,
                expected="2 or more",
                fix="set sampling.guidance=1.0, or build shards with more of that role",
            )


def calibrate(
    seen: SeenDiversity,
    ks: Sequence[int | None],
    weights: Sequence[float],
    known: Calibration,
    keep: Callable[[Calibration], None],
) -> Calibration:
    """The mean diversity of seen distributions by K, at the guidance weights that were tried.

    Whole sets go up the grid until their diversity has fallen below 1. Then the crossing itself is
    tried, since diversity falls in a curve and the chord misses it. Each smaller K begins where the
    one before it ended. A K that comes near enough to 1 is done.

    Args:
        seen: Measures it.
        ks: The sizes of context sets; none: whole ones.
        weights: The grid.
        known: What an earlier attempt found.
        keep: Told of all that is found, after every weight.

    Raises:
        DataError: If a distribution has too few samples for a diversity, or equal ones.
        Preempted: If the run was asked to stop.

    **Collective.** Units are dealt to ranks, weight after weight.
    """
    falling = sorted(ks, key=lambda k: math.inf if k is None else k, reverse=True)
    units = {k: own for k in falling if (own := seen.units(k))}
    found = {size_label(k): dict(known.get(size_label(k), {})) for k in units}
    start = min(weights)
    for k, own in units.items():
        diversity = found[size_label(k)]
        while (weight := _next(diversity, weights, start)) is not None:
            diversity[weight] = _measure(seen, own, weight)
            keep(found)
        start = crossing(diversity)
    return found


def _next(diversity: dict[float, float], weights: Sequence[float], start: float) -> float | None:
    """The weight to try next; none: enough is known."""
    if not diversity:
        return start
    if any(abs(value - 1) <= NEAR for value in diversity.values()):
        return None
    above = [weight for weight, value in diversity.items() if value > 1]
    below = [weight for weight, value in diversity.items() if value < 1]
    if not below:
        return min((weight for weight in weights if weight > max(above)), default=None)
    if not above:
        return max((weight for weight in weights if weight < min(below)), default=None)
    weight = crossing(diversity)
    refined = len(diversity.keys() - set(weights))
    return None if refined == REFINEMENTS or weight in diversity else weight


def _measure(seen: SeenDiversity, units: Sequence[Unit], weight: float) -> float:
    """The mean diversity of the distributions of one K's units. **Collective**."""
    phase = f"choosing guidance for K = {size_label(units[0].k)}"
    entries = [entry for unit in units for entry in unit.entries]
    own = torch.zeros(len(entries), dtype=torch.float64)
    places = own.split([len(unit.entries) for unit in units])
    for index in share_of(range(len(units)), phase):
        places[index].copy_(torch.tensor(seen.of(units[index], weight)))
    found = collectives.sum_over_ranks(own, phase)
    _check_finite(entries, found.tolist())
    diversity = float(found.mean())
    say(f"seen diversity at guidance {weight:g} (K = {size_label(units[0].k)}): {diversity:.3f}")
    return diversity


def beyond(found: Calibration) -> list[str]:
    """Every K whose diversity is above 1 at all weights tried: larger ones might bring it there."""
    return [k for k, diversity in found.items() if min(diversity.values()) > 1 + NEAR]


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


def _check_finite(entries: Sequence[Entry], diversities: Sequence[float]) -> None:
    for entry, diversity in zip(entries, diversities, strict=True):
        if not math.isfinite(diversity):
            raise DataError(
                "the guidance weight cannot be chosen by diversity",
                where=f"distribution {entry.name}, role reference",
                got="samples that are all equal, or drawn ones that are not finite",
                expected="two or more samples of each distribution, the real ones unequal",
                fix="set sampling.guidance to one weight, or leave the distribution out",
            )
