"""Seconds that a stage worked, over all of its attempts."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sno_dist.runtime import collectives
from sno_dist.runtime.artifact import write_json

__all__ = ["stopwatch"]


@contextmanager
def stopwatch(kept: Path) -> Iterator[Callable[[], float]]:
    """Tell the seconds so far, those of earlier attempts among them.

    An attempt that is killed is not counted; one that stops, or fails, is.

    Args:
        kept: Rank 0's file, for the next attempt.
    """
    is_main = collectives.world().is_main
    before = json.loads(kept.read_text()) if is_main and kept.is_file() else 0.0
    began = time.monotonic()

    def seconds() -> float:
        return round(before + time.monotonic() - began, 2)

    try:
        yield seconds
    finally:
        if is_main:
            write_json(kept, seconds())
