"""One writer per folder: a lock that the kernel drops when its process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sno_dist.errors import RunError
from sno_dist.runtime import collectives

__all__ = ["locked"]

_held: set[int] = set()


def _let_go() -> None:
    """A forked loader worker would keep the lock for seconds after its rank was killed."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def locked(folder: Path, name: str = "") -> Iterator[None]:
    """Hold a folder; rank 0 takes the lock and every rank learns whether it got it.

    Args:
        folder: The folder; made if absent.
        name: A file in it that is held and tells who holds it; none: the folder itself is held,
            and nothing is left behind.

    Raises:
        RunError: If another run holds it, or the folder cannot be written.

    **Collective.**
    """
    handle, refused = None, ""
    if collectives.world().is_main:
        handle, refused = _take(folder, name)
    refused = collectives.broadcast(refused, "locking a folder")
    if refused:
        raise RunError(
            "the folder cannot be taken",
            where=folder,
            got=refused,
            fix="wait for the other run, or give this one a folder of its own (run=...)",
        )
    try:
        yield
    finally:
        if handle is not None:
            _held.discard(handle)
            os.close(handle)


def _take(folder: Path, name: str) -> tuple[int | None, str]:
    target = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(target, os.O_RDWR | os.O_CREAT if name else os.O_RDONLY)
    except OSError as error:
        return None, error.strerror or str(error)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # A folder may have been renamed by its owner between the two calls above.
        if not os.path.samestat(os.fstat(handle), target.stat()):
            raise FileNotFoundError
    except OSError:
        holder = os.read(handle, 200).decode(errors="replace").strip() if name else ""
        os.close(handle)
        return None, f"in use by {holder or 'another run'}"
    if name:
        os.ftruncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
    _held.add(handle)
    return handle, ""
