"""The accuracy of a few generated samples while training goes on, for a learning curve.

It chooses nothing: the same samples are drawn of the same distributions at every visit, and what
training does afterwards does not depend on them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sno_dist.config.schema import Config
from sno_dist.diffusion.sampler import sampler_of
from sno_dist.judge.classifier import Classifier
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime.rng import generator, normals
from sno_dist.shards.manifest import Entry, Manifest, SplitName, evenly
from sno_dist.shards.reader import Reader

__all__ = ["Probe"]

CONDITIONS: tuple[tuple[str, SplitName, int | None], ...] = (
    ("seen", "seen", None),
    ("unseen", "unseen", None),
    ("unseen_one", "unseen", 1),
)
"""Name, split, K (none: all context samples)."""


class Probe:
    """Draws from an operator in training and lets the judge name what it drew.

    Args:
        config: The run's; its sections training.probe and sampling.
        manifest: The population.
        reader: Of it.
        judge: Its judge.
    """

    def __init__(
        self, config: Config, manifest: Manifest, reader: Reader, judge: Classifier
    ) -> None:
        self._section, self._seed = config.training.probe, config.seed
        self._reader, self._judge = reader, judge
        self._labels = {entry.name: i for i, entry in enumerate(manifest.entries)}
        self._entries = {
            split: evenly(manifest.split(split), self._section.distributions)
            for split in ("seen", "unseen")
        }
        self._sampler = sampler_of(config.sampling)
        self._constant: dict[tuple[str, int | None], Tensor] = {}

    @torch.no_grad()
    def __call__(self, operator: ScoreNeuralOperator) -> dict[str, float]:
        """Accuracy by condition, as "probe/unseen", of what the operator can embed."""
        found = {}
        for name, split, k in CONDITIONS:
            entries = self._entries[split]
            if entries and (operator.embeds or split == "seen"):
                found[f"probe/{name}"] = self._accuracy(operator, entries, k)
        return found

    def _accuracy(
        self, operator: ScoreNeuralOperator, entries: Sequence[Entry], k: int | None
    ) -> float:
        count = self._section.samples
        u = torch.cat([self._known(operator, entry, k) for entry in entries])
        sources = [
            generator(self._seed, "probe", entry.name, k or 0, index)
            for entry in entries
            for index in range(count)
        ]
        shape = (operator.autoencoder.size,)
        drawn = operator.draw(
            u,
            lambda: torch.from_numpy(normals(sources, shape)),
            self._sampler,
            self._section.guidance,
        )
        labels = np.repeat([self._labels[entry.name] for entry in entries], count)
        return float((self._judge.judge(drawn.cpu().numpy()).labels == labels).mean())

    def _known(self, operator: ScoreNeuralOperator, entry: Entry, k: int | None) -> Tensor:
        """U for each sample, (samples, U), kept where no visit finds another."""
        if not operator.has_constant_u:
            return self._embeddings(operator, entry, k)
        if (entry.name, k) not in self._constant:
            self._constant[entry.name, k] = self._embeddings(operator, entry, k)
        return self._constant[entry.name, k]

    def _embeddings(self, operator: ScoreNeuralOperator, entry: Entry, k: int | None) -> Tensor:
        """U for each sample, (samples, U): one context sample for each where K is 1."""
        count = self._section.samples
        if not operator.embeds:
            row = operator.seen_embedding(entry.name)
            assert row is not None, "an embedder that cannot embed has a table"
            return row.expand(count, -1)
        if k is None:
            whole = torch.from_numpy(self._reader.all(entry, "model"))
            return operator.embed(whole).expand(count, -1)
        source = generator(self._seed, "probe", entry.name, "context")
        size = entry.count("model")
        rows = [
            operator.embed(torch.from_numpy(self._reader.take(entry, "model", index)))
            for index in (source.choice(size, k, replace=False) for _ in range(count))
        ]
        return torch.stack(rows)
