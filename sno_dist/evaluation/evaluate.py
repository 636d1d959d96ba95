"""Stage 5: compare samples with held-out real ones, each rank its share; write the report."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sno_dist.config.load import flatten, run_folder
from sno_dist.config.schema import Config
from sno_dist.embedding.kernels import median_bandwidth
from sno_dist.errors import DataError, Preempted
from sno_dist.evaluation.page import compose
from sno_dist.evaluation.report import render
from sno_dist.evaluation.score import (
    Contexts,
    DistributionScores,
    Reference,
    reference,
    score_distribution,
)
from sno_dist.evaluation.summary import summarise
from sno_dist.evaluation.terminal import table
from sno_dist.judge.classifier import Classifier
from sno_dist.judge.find import find_judge
from sno_dist.runtime import collectives, preemption
from sno_dist.runtime.accelerator import start
from sno_dist.runtime.artifact import open_artifact, reuse, write_json, writing
from sno_dist.runtime.progress import Progress
from sno_dist.runtime.tracking import Tracker
from sno_dist.sampling.plan import context_of, groups_of, label
from sno_dist.sampling.sample_set import SampleSet
from sno_dist.shards.manifest import Entry, Manifest
from sno_dist.shards.reader import Reader

__all__ = ["Report", "evaluate", "open_report"]

KIND = "report"
SUMMARY, PAGE = "summary.json", "report.html"


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What the last stage leaves.

    Args:
        path: report.html.
        summary: The content of summary.json.
    """

    path: Path
    summary: dict[str, Any]

    @property
    def table(self) -> str:
        """The headline figures as text."""
        return table(self.summary)


def open_report(config: Config) -> Report:
    """The report of a config's run.

    Raises:
        ArtifactError: If the stage has not run, or what it left is damaged.
    """
    artifact = open_artifact(run_folder(config) / "evaluation", KIND)
    summary = json.loads((artifact.path / SUMMARY).read_text())
    return Report(path=artifact.path / PAGE, summary=summary)


def evaluate(config: Config, manifest: Manifest, samples: SampleSet) -> Report:
    """Evaluate the samples of a config, or find them evaluated.

    Raises:
        DataError: If a distribution has too few real samples for the figures.
        ArtifactError: If the run's folder holds a report of other samples.
        Preempted: If the run was asked to stop.

    **Collective**: one gathering of the scores.
    """
    start()
    folder = run_folder(config) / "evaluation"
    inputs = {
        "seed": config.seed,
        "shards": manifest.digest,
        "samples": samples.digest,
        **flatten(config.evaluation, "evaluation"),
    }
    if reuse(folder, KIND, inputs):
        return open_report(config)
    began = time.monotonic()
    judge = find_judge(config, manifest)
    with writing(folder, KIND, inputs) as target:
        mine = _Scorer(config, manifest, samples, judge).share()
        scores = [s for part in collectives.gather(mine, "gathering scores") for s in part]
        if collectives.world().is_main:
            summary = summarise(
                scores,
                population=manifest.population,
                guidance=samples.guidance,
                seconds=round(samples.seconds + time.monotonic() - began, 2),
                bootstrap=config.evaluation.bootstrap,
                seed=config.seed,
            )
            write_json(target / SUMMARY, summary)
            (target / PAGE).write_text(render(compose(config, manifest, samples, scores, summary)))
            _record_hparams(config, summary)
    return open_report(config)


class _Scorer:
    """Scores this rank's distributions."""

    def __init__(
        self, config: Config, manifest: Manifest, samples: SampleSet, judge: Classifier | None
    ) -> None:
        self._config, self._manifest = config, manifest
        self._samples, self._judge = samples, judge
        self._reader = Reader(manifest, cache=config.shards.cache)
        self._bandwidth = config.evaluation.bandwidth or self._median()

    def share(self) -> list[DistributionScores]:
        entries = self._manifest.entries
        mine = collectives.world().deal(len(entries))
        scores = []
        with Progress(len(mine), "evaluating") as progress:
            for index in mine:
                scores += self._score(index, entries[index])
                progress.advance()
                if preemption.requested():
                    break
        if collectives.any_rank(preemption.requested(), "evaluating"):
            raise Preempted("asked to stop while evaluating", fix="run the same command to go on")
        return scores

    def _score(self, index: int, entry: Entry) -> list[DistributionScores]:
        ks: tuple[int | None, ...] = (None,)
        if entry.split == "unseen":
            ks = (*self._config.sampling.contexts, None)
        present = [k for k in ks if _key(entry, k) in self._samples.shards]
        if not present:
            return []
        real = reference(
            self._reader.all(entry, "reference"),
            classifier=self._judge,
            label=index if self._judge else None,
            bandwidth=self._bandwidth,
            neighbours=self._config.evaluation.neighbours,
        )
        return [self._compare(entry, k, real) for k in present]

    def _compare(self, entry: Entry, k: int | None, real: Reference) -> DistributionScores:
        groups = groups_of(self._config.sampling, k)
        sets = [
            self._reader.take(entry, "model", context_of(self._config.seed, entry, k, group))
            for group in range(groups[-1] + 1)
        ]
        return score_distribution(
            self._samples.samples(_key(entry, k)),
            real,
            Contexts(sets=sets, groups=groups),
            classifier=self._judge,
            name=entry.name,
            split=entry.split,
            k=k,
        )

    def _median(self) -> float:
        """The median distance between real samples of all distributions, the same on each rank."""
        rows = []
        for entry in self._manifest.entries:
            if entry.count("reference") < 2:
                raise DataError(
                    "a distribution has no held-out samples to compare with",
                    where=f"distribution {entry.name}, role reference",
                    got=entry.count("reference"),
                    fix="raise the source's share or number of reference samples",
                )
            rows.append(self._reader.take(entry, "reference", np.arange(2)))
        stacked = np.concatenate(rows)
        return median_bandwidth(stacked / 255 if stacked.dtype == np.uint8 else stacked)


def _key(entry: Entry, k: int | None) -> str:
    return f"{entry.split}/{label(k)}/{entry.name}"


def _record_hparams(config: Config, summary: dict[str, Any]) -> None:
    """The settings beside the final metrics, for TensorBoard's HParams page."""
    metrics = {
        f"{split}/{name}": float(value)
        for split in ("seen", "unseen")
        for name, value in (summary.get(split) or {}).items()
        if isinstance(value, (int, float)) and name != "k"
    }
    settings = {k: v for k, v in flatten(config).items() if k.startswith(("model", "training"))}
    tracker = Tracker(run_folder(config))
    tracker.hparams(settings, metrics)
    tracker.close()
