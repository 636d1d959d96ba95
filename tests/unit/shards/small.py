"""A small population on disk, for the tests of what reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sno_dist.config.load import load_config
from sno_dist.config.schema import Config

__all__ = ["Touches", "small_config"]


def small_config(root: Path, *overrides: str) -> Config:
    """Digits with few pairs, in folders below `root`."""
    return load_config(
        None,
        [
            "name=small",
            f"shards.path={root}/shards",
            f"run={root}/run",
            "shards.source.model=70",
            "shards.source.judge=4",
            "shards.source.reference=8",
            "shards.block=32",
            "training.context=[1,12]",
            "training.distributions=6",
            "training.targets=5",
            *overrides,
        ],
    )


class Touches:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)
