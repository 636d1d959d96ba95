"""What the report shows, gathered from the run: galleries, curves, the map, the provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sno_dist.config.load import dump, run_folder
from sno_dist.config.schema import Config
from sno_dist.evaluation.cards import WHOLE, Cards
from sno_dist.evaluation.conditions import Condition
from sno_dist.evaluation.report import Embeddings, ReportPage
from sno_dist.evaluation.score import DistributionScores
from sno_dist.evaluation.summary import SPLITS
from sno_dist.evaluation.training_log import LearningCurve, read_log
from sno_dist.runtime.provenance import describe
from sno_dist.sampling.sample_set import SampleSet
from sno_dist.shards.manifest import Entry, Manifest, evenly

__all__ = ["compose", "shown"]

GALLERIES = 30


def compose(
    config: Config,
    manifest: Manifest,
    samples: SampleSet,
    scores: Sequence[DistributionScores],
    summary: Mapping[str, Any],
    beside: Mapping[str, LearningCurve],
) -> ReportPage:
    """The report's content.

    Args:
        config: The run's.
        manifest: The population.
        samples: What was drawn.
        scores: Of every distribution, K and method.
        summary: The content of summary.json.
        beside: Learning curves of other runs, by name.
    """
    log = read_log(run_folder(config))
    known = {(s.name, Condition(method=s.method, k=s.k)): s for s in scores}
    splits = {split: manifest.split(split) for split in SPLITS}
    cards = Cards(config, manifest, samples, known)
    full = {
        name: score.accuracy
        for (name, condition), score in known.items()
        if condition == WHOLE and score.accuracy is not None
    }
    return ReportPage(
        title=config.name,
        summary=summary,
        galleries=[cards.of(entry) for entry in shown(manifest, samples)],
        accuracies={
            split: {e.name: full[e.name] for e in entries if e.name in full}
            for split, entries in splits.items()
            if full
        },
        embeddings=_map(manifest, samples),
        curves=log.losses,
        learning=log.learning,
        beside=beside,
        spectrum=_spectrum(run_folder(config)),
        config=dump(config),
        provenance=describe({"shards": manifest.digest, "samples": samples.digest}),
    )


def shown(manifest: Manifest, samples: SampleSet) -> list[Entry]:
    """Distributions with a card: evenly spread over those that the operator drew samples of."""
    drawn = {
        split: [entry for entry in manifest.split(split) if WHOLE.key(entry) in samples.shards]
        for split in SPLITS
    }
    return [*evenly(drawn["unseen"], GALLERIES), *evenly(drawn["seen"], GALLERIES // 5)]


def _map(manifest: Manifest, samples: SampleSet) -> Embeddings | None:
    known = [entry for entry in manifest.entries if entry.name in samples.embeddings]
    if len(known) < 3:
        return None
    return Embeddings(
        points=np.stack([samples.embeddings[entry.name][: samples.entries] for entry in known]),
        names=[entry.name for entry in known],
        splits=[entry.split for entry in known],
    )


def _spectrum(run: Path) -> dict[str, Any] | None:
    """What the embedding stage told of its principal components, where it fitted any."""
    path = run / "embedding" / "report.json"
    if not path.is_file():
        return None
    fit = json.loads(path.read_text())
    return fit if "eigenvalues" in fit else None
