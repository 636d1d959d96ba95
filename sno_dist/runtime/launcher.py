"""A launcher that ends while its ranks are still meeting: they would wait for it, for an hour."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from sno_dist.errors import RunError
from sno_dist.runtime.ending import end_at_once

__all__ = ["launcher_watched", "parent"]

EVERY = 1.0


@cache
def parent() -> int:
    """The process that started this one, as it was when this was first asked; 0 if it had ended."""
    found = os.getppid()
    # torchrun's agent is the parent of its ranks; init is once that has ended, or where it is init.
    orphaned = found == 1 and "TORCHELASTIC_RUN_ID" in os.environ and not _is_python(found)
    return 0 if orphaned else found


def _is_python(process: int) -> bool:
    try:
        return b"python" in Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return True


@contextmanager
def launcher_watched() -> Iterator[None]:
    """End this rank with one line if its launcher ends within.

    The ranks meet at an address that the launcher serves. Once they have met they can do without
    it, and go on.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    met = threading.Event()
    parent()
    threading.Thread(target=_watch, args=(met,), daemon=True).start()
    try:
        yield
    finally:
        met.set()


def _watch(met: threading.Event) -> None:
    while not met.wait(EVERY):
        if os.getppid() != parent():
            rank = os.environ.get("RANK", "?")
            end_at_once(
                RunError(
                    f"rank {rank} lost contact with another rank during the start",
                    got="the launcher has ended",
                    fix="run the same command again",
                )
            )
