"""Threads of ranks that wait, lent to the one that works."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["lent_threads"]


@contextmanager
def lent_threads() -> Iterator[None]:
    """This rank's threads with those of the machine's other ranks, which wait for it meanwhile.

    No more than the cores that this process may use: a scheduler may have parted them.
    """
    own = torch.get_num_threads()
    ranks, cores = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), len(os.sched_getaffinity(0))
    torch.set_num_threads(max(own, min(own * ranks, cores)))
    try:
        yield
    finally:
        torch.set_num_threads(own)
