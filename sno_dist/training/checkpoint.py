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

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from sno_dist.config.load import run_folder
from sno_dist.config.schema import Config
from sno_dist.errors import ArtifactError
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.model.pretrained import LATEST, TRAINING
from sno_dist.runtime import collectives
from sno_dist.runtime.artifact import (
    Artifact,
    check_inputs,
    is_complete,
    open_artifact,
    write_json,
    writing,
)
from sno_dist.runtime.progress import say
from sno_dist.training.ema import Ema

__all__ = ["Checkpoint", "find_checkpoint", "load_state", "open_checkpoint", "save_checkpoint"]

KIND = "checkpoint"
RAW = "raw.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"


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


def open_checkpoint(config: Config) -> Checkpoint:
    """The finished checkpoint of a config's run.

    Raises:
        ArtifactError: If training has not finished there.
    """
    training = run_folder(config) / TRAINING
    path = training / _name(config.training.steps)
    if not is_complete(path):
        raise ArtifactError(
            "training has not finished here",
            where=training,
            expected=path.name,
            fix="run `sno-dist train` with the same config",
        )
    return _as_checkpoint(open_artifact(path, KIND))


def find_checkpoint(training: Path, inputs: Mapping[str, Any]) -> Checkpoint | None:
    """The newest whole checkpoint, or None; a damaged one is named and passed over.

    Raises:
        ArtifactError: If the newest was made by another config.
    """
    for path in sorted(training.glob("step-*"), reverse=True):
        if not is_complete(path):
            continue
        try:
            artifact = open_artifact(path, KIND)
        except ArtifactError as error:
            say(f"passing over a damaged checkpoint: {error}")
            continue
        check_inputs(artifact, inputs)
        return _as_checkpoint(artifact)
    return None


def save_checkpoint(
    training: Path,
    step: int,
    inputs: Mapping[str, Any],
    operator: ScoreNeuralOperator,
    ema: Ema,
    optimizer: torch.optim.Optimizer,
    scaler: Mapping[str, Any],
    keep: int,
) -> None:
    """Write a checkpoint, point LATEST at it, and drop the oldest beyond `keep`.

    **Collective**; rank 0 writes, since data-parallel ranks hold the same state.
    """
    path = training / _name(step)
    with writing(path, KIND, inputs) as folder:
        if collectives.world().is_main:
            raw = {k: v.contiguous() for k, v in operator.state_dict().items()}
            save_file(raw, folder / RAW)
            with ema.applied(operator):
                operator.save_pretrained(folder)
            save_file(_optimizer_tensors(operator, optimizer), folder / OPTIMIZER)
            write_json(folder / STATE, {"step": step, "scaler": dict(scaler)})
    if collectives.world().is_main:
        pointer = training / f".{LATEST}.part"
        pointer.write_text(path.name + "\n")
        pointer.replace(training / LATEST)
        complete = sorted(p for p in training.glob("step-*") if is_complete(p))
        for old in complete[:-keep]:
            # hidden first: a kill half-way through would leave a COMPLETE folder that is not
            old.rename(old.with_name(f".{old.name}.old"))
        for old in training.glob(".step-*.old"):
            shutil.rmtree(old)


def load_state(
    checkpoint: Checkpoint,
    operator: ScoreNeuralOperator,
    ema: Ema,
    optimizer: torch.optim.Optimizer,
) -> Mapping[str, Any]:
    """Put a checkpoint's state into the parts of a run; returns the scaler's state."""
    operator.load_state_dict(load_file(checkpoint.path / RAW))
    ema.restore(load_file(checkpoint.path / "model.safetensors"))
    saved = load_file(checkpoint.path / OPTIMIZER)
    for name, parameter in operator.named_parameters():
        state = {key: saved[f"{key}/{name}"] for key in _keys(saved, name)}
        if state:
            optimizer.state[parameter] = {k: _laid_out(v, parameter) for k, v in state.items()}
    return json.loads((checkpoint.path / STATE).read_text())["scaler"]


def _optimizer_tensors(
    operator: ScoreNeuralOperator, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    return {
        f"{key}/{name}": value.contiguous()
        for name, parameter in operator.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """A state tensor with its weight's memory layout, which the fused update takes for granted."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value).detach()


def _keys(saved: Mapping[str, Tensor], name: str) -> list[str]:
    ending = f"/{name}"
    return [key[: -len(ending)] for key in saved if key.endswith(ending) and key.count("/") == 1]


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _as_checkpoint(artifact: Artifact) -> Checkpoint:
    state = json.loads((artifact.path / STATE).read_text())
    return Checkpoint(path=artifact.path, step=state["step"], digest=artifact.digest)
