"""What is kept of a step whose loss was not finite, for whoever wants to know why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from sno_dist.model.batch import Batch
from sno_dist.model.pretrained import SPEC, WEIGHTS
from sno_dist.runtime import collectives
from sno_dist.runtime.writing import writing
from sno_dist.training.engines.engine import Engine

__all__ = ["keep_failure", "read_batch"]

KIND = "failure"


def keep_failure(
    training: Path, step: int, engine: Engine, batch: Batch, inputs: Mapping[str, Any]
) -> Path:
    """Write training/failed-step-00000012: the weights before the update, each rank's batch.

    `ScoreNeuralOperator.from_pretrained` reads the weights, `read_batch` a batch.

    Returns:
        The folder.

    **Collective.**
    """
    path = training / f"failed-step-{step:08d}"
    with writing(path, KIND, inputs) as folder:
        with collectives.in_contact("keeping a failed step"):
            weights = {name: tensor.contiguous() for name, tensor in engine.weights().items()}
        if collectives.world().is_main:
            (folder / SPEC).write_text(engine.operator.spec.model_dump_json(indent=1))
            save_file(weights, folder / WEIGHTS)
        held = {f.name: getattr(batch, f.name).contiguous() for f in fields(batch)}
        save_file(held, folder / _name(collectives.world().rank))
    return path


def read_batch(failure: Path, rank: int) -> Batch:
    """The batch that a rank had."""
    return Batch(**load_file(failure / _name(rank)))


def _name(rank: int) -> str:
    return f"batch-{rank:05d}.safetensors"
