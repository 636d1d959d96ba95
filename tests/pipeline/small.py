"""The smallest run that goes through all five stages: digits, a few of each, a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["contents", "last_log", "plain", "small_run"]

CHANGING = {"seconds"}
"""What a stage measures of its own time, wherever it writes it."""


def small_run(shards: Path, run: Path, judge: Path, *overrides: str) -> list[str]:
    """The overrides of a run; a folder of shards or a judge may be shared between runs."""
    return [
        "name=small",
        f"shards.path={shards}",
        f"run={run}",
        f"judge.path={judge}",
        "shards.source.model=40",
        "shards.source.judge=4",
        "shards.source.reference=8",
        "shards.block=16",
        "embedding.width=16",
        "embedding.features=4",
        "model.autoencoder.width=8",
        "model.autoencoder.channels=2",
        "model.network.width=32",
        "model.network.hidden=32",
        "model.network.blocks=2",
        "training.steps=12",
        "training.distributions=6",
        "training.targets=5",
        "training.context=[1,12]",
        "training.save_every=6",
        "training.log_every=2",
        "training.warmup=2",
        "training.workers=0",
        "training.precision=fp32",
        "sampling.steps=4",
        "sampling.guidance=[1.0,1.5]",
        "sampling.contexts=[1,4]",
        "sampling.samples=8",
        "sampling.per_context=4",
        "sampling.batch=80",
        "judge.width=4",
        "judge.epochs=1",
        "judge.min_updates=1",
        "evaluation.bootstrap=50",
        *overrides,
    ]


def contents(folder: Path) -> dict[str, bytes]:
    """Relative path -> bytes of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def plain(path: Path) -> dict[str, Any]:
    """A JSON file without the seconds that a stage took."""
    return {k: v for k, v in json.loads(path.read_text()).items() if k not in CHANGING}


def last_log(run: Path) -> dict[str, Any]:
    """The last line of a run's log."""
    return json.loads((run / "logs/rank-00000.jsonl").read_text().splitlines()[-1])
