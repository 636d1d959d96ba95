"""Stage 5: compare samples with held-out real ones, each rank its share; write the report."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sno_dist.config.load import flatten, run_folder
from sno_dist.config.schema import Config
from sno_dist.evaluation.page import compose
from sno_dist.evaluation.reference import check_counts
from sno_dist.evaluation.report import render
from sno_dist.evaluation.score_error import check_levels, check_trained, score_error
from sno_dist.evaluation.scorer import Scorer
from sno_dist.evaluation.summary import summarise
from sno_dist.evaluation.terminal import table
from sno_dist.evaluation.training_log import LearningCurve, learning_of
from sno_dist.judge.find import find_judge, judge_inputs
from sno_dist.runtime import collectives
from sno_dist.runtime.accelerator import start
from sno_dist.runtime.artifact import open_artifact, reuse, write_json
from sno_dist.runtime.tracking import Tracker
from sno_dist.runtime.writing import writing
from sno_dist.sampling.sample_set import SampleSet
from sno_dist.shards.manifest import Manifest

__all__ = ["Report", "check_evaluation", "evaluate", "open_report"]

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
        DataError: If a distribution has too few real samples for the figures, or a run that is to
            be shown beside has no learning curve.
        ArtifactError: If the run's folder holds a report of other samples, or lacks the
            checkpoint whose score can be compared with the exact one.
        Preempted: If the run was asked to stop.

    **Collective**: one gathering of the scores, one sum of errors.
    """
    start()
    folder = run_folder(config) / "evaluation"
    inputs = {
        "seed": config.seed,
        "shards": manifest.digest,
        "samples": samples.digest,
        **judge_inputs(config.judge),
        **flatten(config.evaluation, "evaluation"),
    }
    if reuse(folder, KIND, inputs):
        return open_report(config)
    beside = check_evaluation(config, manifest)
    check_trained(config, manifest)
    judge = find_judge(config, manifest)
    began = time.monotonic()
    with writing(folder, KIND, inputs) as target:
        mine = Scorer(config, manifest, samples, judge).share()
        parts = collectives.gather_on_main(mine, "gathering scores")
        error = score_error(config, manifest, samples)
        if collectives.world().is_main:
            scores = [score for part in parts for score in part]
            summary = summarise(
                scores,
                population=manifest.population,
                guidance=samples.guidance,
                acceptance=config.sampling.acceptance,
                seconds=round(samples.seconds + time.monotonic() - began, 2),
                bootstrap=config.evaluation.bootstrap,
                seed=config.seed,
            )
            if error is not None:
                summary["score_error"] = error
            write_json(target / SUMMARY, summary)
            page = compose(config, manifest, samples, scores, summary, beside)
            (target / PAGE).write_text(render(page), encoding="utf-8")
            _record_hparams(config, summary)
    return open_report(config)


def check_evaluation(config: Config, manifest: Manifest) -> dict[str, LearningCurve]:
    """Refuse what cannot be evaluated, before anything is drawn; the learning curves of other runs.

    Raises:
        DataError: If a distribution has too few real samples for the figures, or a run that is to
            be shown beside has no learning curve.
        ConfigError: If too few samples are to be drawn, or a noise level is beyond the schedule.
    """
    check_counts(config, manifest)
    check_levels(config, manifest)
    return learning_of(config.evaluation.beside)


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
