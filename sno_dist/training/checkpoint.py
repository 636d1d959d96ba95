"""Checkpoints: everything needed to go on as if nothing had happened, written whole or not at all.

training/step-00002000/ holds the averaged weights in the form that `from_pretrained` reads, the
raw weights, the optimizer's state and the step; training/LATEST names the newest.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from sno_dist.config.load import flatten, run_folder
from sno_dist.config.schema import Config
from sno_dist.errors import ArtifactError
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.model.pretrained import LATEST, TRAINING
from sno_dist.runtime import collectives
from sno_dist.runtime.artifact import Artifact, check_inputs, is_complete, open_artifact, write_json
from sno_dist.runtime.progress import say
from sno_dist.runtime.writing import writing
from sno_dist.shards.manifest import Manifest

__all__ = [
    "Checkpoint",
    "Snapshot",
    "find_checkpoint",
    "find_trained",
    "is_trained",
    "open_checkpoint",
    "save_checkpoint",
    "training_inputs",
]

KIND = "checkpoint"
PHASE = "looking for a checkpoint"
RAW = "raw.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"

CADENCE = ("workers", "micro", "save_every", "keep", "log_every", "picture_every", "probe")
"""Settings that change how training runs, not what it computes; they may differ on resuming."""
FREE = ("seed", "training.precision")
"""Inputs of which a later stage may have its own."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """A complete checkpoint.

    Args:
        path: Its folder.
        step: Updates done.
        digest: Of its files, for those downstream to pin.
    """

    path: Path
    step: int
    digest: str

    def operator(self) -> ScoreNeuralOperator:
        """The operator with the averaged weights."""
        return ScoreNeuralOperator.from_pretrained(self.path)

    def read(self) -> Snapshot:
        """All that it holds, to go on from."""
        return Snapshot(
            step=self.step,
            weights=load_file(self.path / RAW),
            averaged=self.operator(),
            moments=load_file(self.path / OPTIMIZER),
            scaler=json.loads((self.path / STATE).read_text())["scaler"],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """A run's state at a step, whole: it goes on under any engine and number of ranks.

    Args:
        step: Updates done.
        weights: The operator's state: weights as trained, and buffers.
        averaged: The operator with averaged weights.
        moments: The optimizer's state, as "exp_avg/<name>".
        scaler: The loss scaler's state.
    """

    step: int
    weights: Mapping[str, Tensor]
    averaged: ScoreNeuralOperator
    moments: Mapping[str, Tensor]
    scaler: Mapping[str, Any]


def training_inputs(config: Config, manifest: Manifest) -> dict[str, Any]:
    """What a checkpoint is made from, beside the embedding stage's artifact."""
    inputs: dict[str, Any] = {"seed": config.seed, "shards": manifest.digest}
    for section in ("embedding", "model", "training"):
        inputs |= flatten(getattr(config, section), section)
    return {k: v for k, v in inputs.items() if not _is_cadence(k)}


def _is_cadence(key: str) -> bool:
    return key.removeprefix("training.").partition(".")[0] in CADENCE


def open_checkpoint(config: Config, manifest: Manifest) -> Checkpoint:
    """The finished checkpoint of a config's run.

    Raises:
        ArtifactError: If training has not finished there, or was of other settings or shards.
    """
    path = _last(config)
    if not is_trained(config):
        raise ArtifactError(
            "training has not finished here",
            where=path.parent,
            expected=path.name,
            fix="run `sno-dist train` with the same config",
        )
    artifact = open_artifact(path, KIND)
    asked = {k: v for k, v in training_inputs(config, manifest).items() if k not in FREE}
    check_inputs(artifact, {**artifact.inputs, **asked})
    return _as_checkpoint(artifact)


def is_trained(config: Config) -> bool:
    """Whether the last step of a config's run has a checkpoint, of whatever other settings."""
    return is_complete(_last(config))


def _last(config: Config) -> Path:
    return run_folder(config) / TRAINING / _name(config.training.steps)


def find_trained(config: Config, inputs: Mapping[str, Any]) -> Checkpoint | None:
    """The checkpoint of a config's last step; None if it is not there, or damaged.

    Raises:
        ArtifactError: If it was made by another config.

    **Collective**; rank 0 looks.
    """
    whole = collectives.from_main(lambda: _is_whole(_last(config)), PHASE)
    return _opened(_last(config), inputs) if whole else None


def _is_whole(path: Path) -> bool:
    try:
        return bool(open_artifact(path, KIND))
    except ArtifactError:
        return False


def find_checkpoint(training: Path, inputs: Mapping[str, Any]) -> Checkpoint | None:
    """The newest whole checkpoint, or None; a damaged one is named and passed over.

    LATEST is moved to it: a kill between a checkpoint and its name leaves that behind.

    Raises:
        ArtifactError: If the newest was made by another config.

    **Collective**: rank 0 looks, so that all ranks go on from the same step.
    """
    newest = _newest_whole(training) if collectives.world().is_main else None
    newest = collectives.broadcast(newest, PHASE)
    return None if newest is None else _opened(newest, inputs)


def _opened(path: Path, inputs: Mapping[str, Any]) -> Checkpoint:
    """A whole checkpoint, which rank 0 has verified, and of which LATEST is to tell."""
    artifact = open_artifact(path, KIND, verify=False)
    check_inputs(artifact, inputs)
    if collectives.world().is_main:
        _name_latest(path)
    return _as_checkpoint(artifact)


def _newest_whole(training: Path) -> Path | None:
    for path in sorted(training.glob("step-*"), reverse=True):
        if is_complete(path):
            try:
                return open_artifact(path, KIND).path
            except ArtifactError as error:
                say(f"passing over a damaged checkpoint: {error}")
    return None


def save_checkpoint(
    training: Path, snapshot: Snapshot, inputs: Mapping[str, Any], keep: int
) -> None:
    """Write a checkpoint, point LATEST at it, and drop the oldest beyond `keep`.

    Newer ones are dropped too: training went on from before them, since they are damaged. So is
    what a kill left of any.

    **Collective**; rank 0 writes.
    """
    path = training / _name(snapshot.step)
    if collectives.world().is_main and not is_complete(path):
        # in a run that is locked nobody else gives folders such a name
        shutil.rmtree(path, ignore_errors=True)
    with writing(path, KIND, inputs) as folder:
        if collectives.world().is_main:
            save_file(_contiguous(snapshot.weights), folder / RAW)
            snapshot.averaged.save_pretrained(folder)
            save_file(_contiguous(snapshot.moments), folder / OPTIMIZER)
            write_json(folder / STATE, {"step": snapshot.step, "scaler": dict(snapshot.scaler)})
    if collectives.world().is_main:
        _name_latest(path)
        complete = sorted(p for p in training.glob("step-*") if is_complete(p))
        place = complete.index(path) + 1
        for old in complete[: max(0, place - keep)] + complete[place:]:
            # hidden first: a kill half-way through would leave a COMPLETE folder that is not
            old.rename(old.with_name(f".{old.name}.old"))
        for pattern in (".step-*.old", ".step-*.partial"):
            for old in training.glob(pattern):
                shutil.rmtree(old)


def _name_latest(path: Path) -> None:
    latest, name = path.with_name(LATEST), path.name + "\n"
    if not (latest.is_file() and latest.read_text() == name):
        pointer = path.with_name(f".{LATEST}.part")
        pointer.write_text(name)
        pointer.replace(latest)


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _as_checkpoint(artifact: Artifact) -> Checkpoint:
    state = json.loads((artifact.path / STATE).read_text())
    return Checkpoint(path=artifact.path, step=state["step"], digest=artifact.digest)
