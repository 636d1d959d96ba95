"""What the report shows, gathered from the run: galleries, curves, the map, the provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sno_dist.config.load import dump, run_folder
from sno_dist.config.schema import Config
from sno_dist.evaluation.report import Embeddings, Gallery, ReportPage
from sno_dist.evaluation.score import DistributionScores
from sno_dist.runtime.provenance import describe
from sno_dist.sampling.plan import context_of, label
from sno_dist.sampling.sample_set import SampleSet
from sno_dist.shards.manifest import Entry, Manifest
from sno_dist.shards.reader import Reader

__all__ = ["compose"]

SHOWN = {"image": 10, "vector": 300}
GALLERIES = 30


def compose(
    config: Config,
    manifest: Manifest,
    samples: SampleSet,
    scores: Sequence[DistributionScores],
    summary: Mapping[str, Any],
) -> ReportPage:
    """The report's content.

    Args:
        config: The run's.
        manifest: The population.
        samples: What was drawn.
        scores: Of every distribution and K.
        summary: The content of summary.json.
    """
    reader = Reader(manifest, verify=False, cache=config.shards.cache)
    full = {s.name: s.accuracy for s in scores if s.k is None and s.accuracy is not None}
    splits = {split: manifest.split(split) for split in ("seen", "unseen")}
    shown = [*splits["unseen"][:GALLERIES], *splits["seen"][: GALLERIES // 5]]
    return ReportPage(
        title=config.name,
        summary=summary,
        galleries=[
            gallery
            for entry in shown
            for gallery in _galleries(config, reader, samples, entry, full.get(entry.name))
        ],
        accuracies={
            split: {e.name: full[e.name] for e in entries if e.name in full}
            for split, entries in splits.items()
            if full
        },
        embeddings=_map(manifest, samples),
        curves=_curves(run_folder(config)),
        config=dump(config),
        provenance=describe({"shards": manifest.digest, "samples": samples.digest}),
    )


def _galleries(
    config: Config, reader: Reader, samples: SampleSet, entry: Entry, accuracy: float | None
) -> list[Gallery]:
    """Samples from the whole context; for an unseen image distribution from one example too."""
    domain = reader.manifest.domain
    count = SHOWN[domain]
    real = reader.take(entry, "reference", np.arange(min(count, entry.count("reference"))))
    note = "" if accuracy is None else f"{100 * accuracy:.0f} % named rightly"
    found = []
    if (key := f"{entry.split}/all/{entry.name}") in samples.shards:
        found.append(
            Gallery(name=entry.name, real=real, generated=samples.samples(key)[:count], note=note)
        )
    smallest = min(config.sampling.contexts, default=0)
    key = f"{entry.split}/{label(smallest)}/{entry.name}"
    if entry.split == "unseen" and domain == "image" and key in samples.shards:
        index = context_of(config.seed, entry, smallest, 0)
        own = samples.samples(key)[: min(count, config.sampling.per_context)]
        found.append(
            Gallery(
                name=entry.name,
                real=real,
                generated=own,
                context=reader.take(entry, "model", index[:count]),
                note=f"from K = {smallest}",
            )
        )
    return found


def _map(manifest: Manifest, samples: SampleSet) -> Embeddings | None:
    known = [entry for entry in manifest.entries if entry.name in samples.embeddings]
    if len(known) < 3:
        return None
    return Embeddings(
        points=np.stack([samples.embeddings[entry.name] for entry in known]),
        names=[entry.name for entry in known],
        splits=[entry.split for entry in known],
    )


def _curves(run: Path) -> dict[str, tuple[list[float], list[float]]]:
    """The losses that training logged; where a resumed run wrote a step twice, the last counts."""
    log = run / "logs" / "rank-00000.jsonl"
    if not log.is_file():
        return {}
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    curves: dict[str, dict[float, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith("loss/"):
                curves.setdefault(name.removeprefix("loss/"), {})[row["step"]] = value
    return {
        name: ([float(step) for step in sorted(values)], [values[step] for step in sorted(values)])
        for name, values in curves.items()
    }
