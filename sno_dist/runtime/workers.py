"""Loader workers that are lost: killed for their memory, most often."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from sno_dist.errors import RunError
from sno_dist.runtime.ending import end_at_once

__all__ = ["is_worker_loss", "watch_workers", "workers_watched"]

FIX = (
    "look for what killed it, often too little memory; lower training.workers, or run the same "
    "command to go on from the last checkpoint"
)
EVERY, GRACE = 1.0, 20.0
"""Seconds between two looks at the workers; and for torch to tell of a lost one by itself."""

_told = threading.Event()


def is_worker_loss(error: RuntimeError) -> bool:
    """Whether torch says by this that a worker died; it has no type for it."""
    return str(error).startswith("DataLoader worker")


@contextmanager
def workers_watched() -> Iterator[None]:
    """Tell of a lost worker in one line.

    Torch raises from a signal handler, so at any place of the program and not where the next batch
    is asked for.

    Raises:
        RunError: If a worker was lost.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_worker_loss(error):
            raise
        _told.set()
        if "Bus error" in str(error):
            sys.stderr.write("\n")  # torch's own line about it has no end
        raise RunError("a loader worker was lost", got=str(error).strip(), fix=FIX) from None


def watch_workers(processes: Sequence[int], in_use: Callable[[], object]) -> None:
    """End this process some time after a worker was lost, if torch did not.

    A worker that is killed while it hands over a batch leaves a part of it in the pipe, and who
    waits for the rest waits for ever, if torch's exception happened to be raised where exceptions
    are dropped.

    Args:
        processes: The workers.
        in_use: What is not None as long as they are needed.
    """
    threading.Thread(target=_watch, args=(processes, in_use), daemon=True).start()


def _watch(processes: Sequence[int], in_use: Callable[[], object]) -> None:
    while in_use() is not None:
        time.sleep(EVERY)
        if any(map(_is_lost, processes)):
            time.sleep(GRACE)
            if in_use() is not None and not _told.is_set():
                end_at_once(RunError("a loader worker was lost", fix=FIX))


def _is_lost(process: int) -> bool:
    """Whether a child ended otherwise than by itself, without taking note of it for others."""
    try:
        state = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return state is not None and (state.si_code != os.CLD_EXITED or state.si_status != 0)
