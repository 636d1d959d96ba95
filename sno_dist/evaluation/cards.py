"""What the report's cards show of a distribution: real samples beside generated ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from sno_dist.config.schema import Baseline, Config
from sno_dist.evaluation.conditions import Condition
from sno_dist.evaluation.gallery import Gallery, Kind, Panel
from sno_dist.evaluation.notation import figure, percent
from sno_dist.evaluation.score import DistributionScores
from sno_dist.sampling.plan import context_of
from sno_dist.sampling.sample_set import SampleSet
from sno_dist.shards.manifest import Entry, Manifest
from sno_dist.shards.reader import reader_of

__all__ = ["WHOLE", "Cards", "Scores"]

SHOWN = {"image": 10, "vector": 300}
BASELINES = 3
"""Panels of baselines on a card at most."""

WHOLE = Condition()
"""The operator with the whole context set."""

Scores = Mapping[tuple[str, Condition], DistributionScores]
"""(distribution, condition) -> its scores."""


class Cards:
    """Makes the cards of one run.

    Args:
        config: The run's.
        manifest: The population.
        samples: What was drawn.
        scores: Theirs.
    """

    def __init__(
        self, config: Config, manifest: Manifest, samples: SampleSet, scores: Scores
    ) -> None:
        self._config, self._samples, self._scores = config, samples, scores
        self._reader = reader_of(config, manifest, verify=False)
        self._domain = manifest.domain
        self._count = SHOWN[manifest.domain]

    def of(self, entry: Entry) -> Gallery:
        """The card of a distribution that the operator drew samples of."""
        panels = self._images(entry) if self._domain == "image" else self._vectors(entry)
        return Gallery(name=entry.name, panels=panels, note=entry.split)

    def _vectors(self, entry: Entry) -> list[Panel]:
        """Real samples, the operator's and some baselines', with MMD^2 (figure 1 of the paper)."""
        floor = self._scores[entry.name, WHOLE].real.mmd_floor
        drawn = [Condition(method=method) for method in get_args(Baseline)]
        there = [own for own in drawn if own.key(entry) in self._samples.shards]
        return [
            self._real(entry, f"floor {figure(floor)}"),
            self._drawn(entry, WHOLE, "operator"),
            *(self._drawn(entry, own, own.method) for own in there[:BASELINES]),
        ]

    def _images(self, entry: Entry) -> list[Panel]:
        """Samples from the whole context set; of an unseen distribution from the smallest too."""
        panels = [self._drawn(entry, WHOLE, "from all"), self._real(entry)]
        smallest = Condition(k=min(self._config.sampling.contexts, default=0))
        if smallest.key(entry) not in self._samples.shards:
            return panels
        index = context_of(self._config.seed, entry, smallest.k, 0)
        context = self._reader.take(entry, "model", index[: self._count])
        few = min(self._count, self._config.sampling.per_context)
        return [
            Panel(kind="context", title="context", samples=context),
            self._drawn(entry, smallest, f"from K = {smallest.k}", few),
            *panels,
        ]

    def _real(self, entry: Entry, note: str = "") -> Panel:
        index = np.arange(min(self._count, entry.count("reference")))
        samples = self._reader.take(entry, "reference", index)
        return Panel(kind="real", title="real", samples=samples, note=note)

    def _drawn(
        self, entry: Entry, condition: Condition, title: str, count: int | None = None
    ) -> Panel:
        samples: NDArray[Any] = self._samples.samples(condition.key(entry))[: count or self._count]
        kind: Kind = "operator" if condition.method == "operator" else "baseline"
        note = self._note(self._scores[entry.name, condition])
        return Panel(kind=kind, title=title, samples=samples, note=note)

    def _note(self, score: DistributionScores) -> str:
        if self._domain == "vector":
            return f"MMD\N{SUPERSCRIPT TWO} {figure(score.mmd)}"
        return "" if score.accuracy is None else f"{percent(score.accuracy)} named rightly"
