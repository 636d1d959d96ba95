"""The judge as an artifact: trained once for a population, on samples the model never sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from sno_dist.config.load import flatten, run_folder
from sno_dist.config.schema import Config
from sno_dist.config.schema import Judge as Settings
from sno_dist.errors import Preempted
from sno_dist.judge.classifier import Classifier, load_classifier
from sno_dist.judge.train import train_classifier, updates_of
from sno_dist.runtime import collectives, preemption
from sno_dist.runtime.accelerator import device
from sno_dist.runtime.artifact import digest, open_artifact, reuse
from sno_dist.runtime.progress import Progress
from sno_dist.runtime.threads import lent_threads
from sno_dist.runtime.writing import writing
from sno_dist.shards.manifest import Manifest
from sno_dist.shards.reader import reader_of

__all__ = ["find_judge", "judge_inputs"]

KIND = "judge"
PHASE = "training the judge"


def find_judge(config: Config, manifest: Manifest) -> Classifier | None:
    """The population's judge, trained if there is none yet; None where accuracy means nothing.

    Rank 0 trains while the others wait, on a CPU with the threads of those on its machine: the
    network is small, and its weights depend on the number of these threads at most.

    Raises:
        ArtifactError: If the folder holds a judge of other samples or settings, or a damaged one.
        Preempted: If the run was asked to stop; the judge's training then begins anew.

    **Collective.**
    """
    settings = config.judge
    judged = all(entry.count("judge") for entry in manifest.entries)
    if settings is None or not judged or manifest.domain != "image":
        return None
    folder = Path(settings.path).expanduser() if settings.path else run_folder(config) / "judge"
    inputs = {"samples": _samples(manifest), **judge_inputs(settings)}
    if not reuse(folder, KIND, inputs):
        with writing(folder, KIND, inputs) as target:
            main = collectives.world().is_main
            judge = _train(config, manifest, settings) if main else None
            if collectives.any_rank(main and judge is None, PHASE):
                raise Preempted(f"asked to stop while {PHASE}", fix="run the same command again")
            if judge is not None:
                judge.save(target)
    open_artifact(folder, KIND)
    return load_classifier(folder, device())


def judge_inputs(settings: Settings | None) -> dict[str, Any]:
    """What figures of the judge depend on besides the shards: not where it lies."""
    return flatten(settings.model_copy(update={"path": None}), "judge") if settings else {}


def _samples(manifest: Manifest) -> str:
    """One hash of what it learns from: whatever the split and the other roles are."""
    roles = [(entry.name, entry.roles.get("judge", ())) for entry in manifest.entries]
    return digest([[name, [shard.sha256 for shard in shards]] for name, shards in roles])


def _train(config: Config, manifest: Manifest, settings: Settings) -> Classifier | None:
    """The judge; None if the run was asked to stop."""
    reader = reader_of(config, manifest)
    parts = [reader.all(entry, "judge") for entry in manifest.entries]
    labels = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    images = np.concatenate(parts)
    with lent_threads(), Progress(updates_of(settings, len(images)), PHASE) as progress:

        def told(loss: float) -> None:
            progress.advance(note=f"loss {loss:.3f}")
            if preemption.requested():
                raise _Stopped

        try:
            return train_classifier(
                images.astype(np.uint8, copy=False),
                labels,
                settings,
                classes=len(parts),
                progress=told,
                device=device(),
            )
        except _Stopped:
            return None


class _Stopped(Exception):
    """Rank 0 was asked to stop; the others are to agree."""
