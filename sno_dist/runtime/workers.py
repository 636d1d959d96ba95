"""Loader workers that are lost: killed for their memory, most often."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from sno_dist.errors import RunError

__all__ = ["is_worker_loss", "workers_watched"]


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
        if "Bus error" in str(error):
            sys.stderr.write("\n")  # torch's own line about it has no end
        raise RunError(
            "a loader worker was lost",
            got=str(error).strip(),
            fix="look for what killed it, often too little memory; lower training.workers, or run "
            "the same command to go on from the last checkpoint",
        ) from None
