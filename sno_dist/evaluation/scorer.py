"""One rank's share of the scores: its distributions, each read, compared and forgotten."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sno_dist.config.schema import Config
from sno_dist.embedding.pairs import median_bandwidth
from sno_dist.evaluation.conditions import Condition, conditions
from sno_dist.evaluation.reference import Comparison, Reference, reference
from sno_dist.evaluation.score import Contexts, DistributionScores, score_distribution
from sno_dist.judge.classifier import Classifier
from sno_dist.runtime.share import share_of
from sno_dist.sampling.plan import context_of, groups_of
from sno_dist.sampling.sample_set import SampleSet
from sno_dist.shards.manifest import Entry, Manifest
from sno_dist.shards.reader import reader_of

__all__ = ["Scorer"]

BANDWIDTHS = (1.0, 0.25, 0.5, 2.0)
"""Times the median distance, where the config names no bandwidth: no one scale can be picked."""

MEDIAN_SAMPLES = 1000
"""About so many, the same of each distribution, tell it."""


class Scorer:
    """Scores this rank's distributions.

    Args:
        config: The run's.
        manifest: The population.
        samples: What was drawn.
        judge: The classifier of images; none: there is no accuracy.
    """

    def __init__(
        self, config: Config, manifest: Manifest, samples: SampleSet, judge: Classifier | None
    ) -> None:
        self._config, self._manifest = config, manifest
        self._samples, self._judge = samples, judge
        self._reader = reader_of(config, manifest)
        self._conditions = conditions(samples.shards)
        section = config.evaluation
        # a transform's shift and scale are of its own coordinates
        plain = manifest.domain == "vector" and manifest.transform.kind == "none"
        self._unit = np.array(manifest.scale) if section.standardise and plain else None
        self._comparison = Comparison(
            bandwidths=section.bandwidths or self._bandwidths(),
            neighbours=section.neighbours,
            permutations=section.permutations,
            seed=config.seed,
        )

    def share(self) -> list[DistributionScores]:
        """The scores of this rank's distributions under every condition.

        Raises:
            DataError: If a distribution has too few real samples for the figures.
            Preempted: If the run was asked to stop.

        **Collective** at the end.
        """
        # the judge's class of a distribution is its place among all
        drawn = [
            (label, entry)
            for label, entry in enumerate(self._manifest.entries)
            if (entry.split, entry.name) in self._conditions
        ]
        scores = []
        for label, entry in share_of(drawn, "evaluating"):
            scores += self._score(label, entry)
        return scores

    def _score(self, label: int, entry: Entry) -> list[DistributionScores]:
        present = self._conditions[entry.split, entry.name]
        real = reference(
            self._in_units(self._reader.all(entry, "reference")),
            name=entry.name,
            split=entry.split,
            size=self._size(entry, present),
            classifier=self._judge,
            label=label if self._judge else None,
            comparison=self._comparison,
        )
        return [self._compare(entry, condition, real) for condition in present]

    def _size(self, entry: Entry, present: Sequence[Condition]) -> int:
        """Generated samples under each condition."""
        return min(self._samples.shards[condition.key(entry)].count for condition in present)

    def _compare(self, entry: Entry, condition: Condition, real: Reference) -> DistributionScores:
        k = condition.k
        groups = groups_of(self._config.sampling, k, condition.method)
        indices = (context_of(self._config.seed, entry, k, g) for g in range(groups[-1] + 1))
        sets = [self._in_units(self._reader.take(entry, "model", index)) for index in indices]
        return score_distribution(
            self._in_units(self._samples.samples(condition.key(entry))),
            real,
            Contexts(sets=sets, groups=groups),
            classifier=self._judge,
            k=k,
            method=condition.method,
        )

    def _in_units(self, samples: NDArray[Any]) -> NDArray[Any]:
        return samples if self._unit is None else samples / self._unit

    def _bandwidths(self) -> tuple[float, ...]:
        """Of the median distance between all distributions' real samples; equal on all ranks."""
        rows, each = [], max(2, math.ceil(MEDIAN_SAMPLES / len(self._manifest.entries)))
        # each rank would read all shards whole to check them, and does so with those that it scores
        reader = reader_of(self._config, self._manifest, verify=False)
        for entry in self._manifest.entries:
            asked = np.arange(min(each, entry.count("reference")))
            rows.append(self._in_units(reader.take(entry, "reference", asked)))
        stacked = np.concatenate(rows)
        median = median_bandwidth(stacked / 255 if stacked.dtype == np.uint8 else stacked)
        return tuple(factor * median for factor in BANDWIDTHS)
