"""Where each stage leaves its artifact, and what of it is there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from sno_dist.config.load import run_folder, shards_folder
from sno_dist.config.schema import Config

__all__ = ["STAGES", "State", "folders", "is_run", "newest_step", "state", "state_of"]

STAGES = ("embedding", "training", "sampling", "evaluation")
"""The stages' folders inside a run, in the order of the data flow; shards lie outside of it."""

State = Literal["complete", "begun", "absent", "remote"]


def folders(config: Config) -> dict[str, str]:
    """Stage -> the folder or URL that it writes."""
    run = run_folder(config)
    return {"shards": shards_folder(config), **{stage: str(run / stage) for stage in STAGES}}


def is_run(path: Path) -> bool:
    """Whether a folder is a run's: it holds a resolved config or a stage's folder."""
    return (path / "config.yaml").is_file() or any((path / stage).is_dir() for stage in STAGES)


def state_of(config: Config, stage: str) -> State:
    """What a config's stage has left; training is complete with the checkpoint of its last step."""
    folder = folders(config)[stage]
    if stage == "training" and state(f"{folder}/step-{config.training.steps:08d}") == "complete":
        return "complete"
    return state(folder)


def newest_step(run: Path) -> int | None:
    """The step of a run's newest checkpoint; None if there is none."""
    steps = [path.parent.name for path in (run / "training").glob("step-*/COMPLETE")]
    return int(max(steps).removeprefix("step-")) if steps else None


def state(folder: str | Path) -> State:
    """What is there: a folder is complete if it carries COMPLETE."""
    if "://" in str(folder):
        return "remote"
    path = Path(os.path.realpath(folder))  # an attempt lies beside what a link leads to
    if (path / "COMPLETE").is_file():
        return "complete"
    attempt = path.with_name(f".{path.name}.partial")
    return "begun" if path.exists() or attempt.exists() else "absent"
