"""Being asked to stop: a signal sets a flag, and the stages look at it at safe points."""

from __future__ import annotations

import signal
from types import FrameType

__all__ = ["ignore_signals", "listen", "requested"]

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)
_asked = False


def listen() -> None:
    """Let TERM and USR2 set the flag instead of ending the process."""
    for number in SIGNALS:
        signal.signal(number, _raise_flag)


def requested() -> bool:
    """Whether this process was asked to stop. Ranks must agree before they act on it."""
    return _asked


def ignore_signals(worker: int) -> None:
    """For loader workers: a signal to the group must not end them before the rank has saved."""
    del worker
    for number in (*SIGNALS, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def _raise_flag(number: int, frame: FrameType | None) -> None:
    del number, frame
    global _asked  # noqa: PLW0603 - a signal handler can reach nothing else
    _asked = True
