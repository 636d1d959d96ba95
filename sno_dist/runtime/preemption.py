"""Being asked to stop: a signal sets a flag, and the stages look at it at safe points."""

from __future__ import annotations

import ctypes
import signal
import sys
from types import FrameType

__all__ = ["ignore_signals", "listen", "requested"]

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
_asked = False


def listen() -> None:
    """Let TERM and USR2 set the flag instead of ending the process."""
    for number in SIGNALS:
        signal.signal(number, _raise_flag)


def requested() -> bool:
    """Whether this process was asked to stop. Ranks must agree before they act on it."""
    return _asked


def ignore_signals(worker: int) -> None:
    """For loader workers: a signal to the group must not end them before the rank has saved.

    They end with their rank, however it ends: a forked worker holds its connections, and for as
    long as it lives, the other ranks do not learn that the rank is lost.
    """
    del worker
    for number in (*SIGNALS, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _raise_flag(number: int, frame: FrameType | None) -> None:
    del number, frame
    global _asked  # noqa: PLW0603 - a signal handler can reach nothing else
    _asked = True
