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
from sno_dist.runtime.disk import check_shared

__all__ = ["LOCK", "locked"]

LOCK = ".lock"
"""The file that is locked."""
IN_USE = "in use"

_held: set[int] = set()


def _let_go() -> None:
    """A forked loader worker would keep the lock for seconds after its rank was killed."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder; rank 0 takes the lock and every rank learns whether it got it.

    What is locked is a file of the folder's, which network file systems tell the other nodes of; it
    says who holds it, and stays.

    Args:
        folder: The folder; made if absent.

    Raises:
        RunError: If another run holds it, the folder cannot be written, or files cannot be locked
            there.
        ArtifactError: If it is another folder for another rank.

    **Collective.**
    """
    handle, refused = None, ""
    if collectives.world().is_main:
        handle, refused = _take(folder)
    refused = collectives.broadcast(refused, "locking a folder")
    if refused:
        other = "name another folder (run=, shards.path=, judge.path=)"
        raise RunError(
            "the folder cannot be taken",
            where=folder,
            got=refused,
            fix=f"wait for the other run, or {other}" if refused.startswith(IN_USE) else other,
        )
    try:
        check_shared(folder)
        yield
    finally:
        if handle is not None:
            _held.discard(handle)
            os.close(handle)


def _take(folder: Path) -> tuple[int | None, str]:
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        return None, error.strerror or str(error)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The folder may have been renamed by its owner between the two calls above.
        free = os.path.samestat(os.fstat(handle), path.stat())
    except (BlockingIOError, FileNotFoundError):
        free = False
    except OSError as error:
        os.close(handle)
        return None, f"files cannot be locked there: {error.strerror}"
    if not free:
        holder = os.read(handle, 200).decode(errors="replace").strip()
        os.close(handle)
        return None, f"{IN_USE} by {holder or 'another run'}"
    os.ftruncate(handle, 0)
    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
    _held.add(handle)
    return handle, ""
