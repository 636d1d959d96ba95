"""A disk that cannot be written: full, read-only, or not ours; or that the nodes do not share."""

from __future__ import annotations

import errno
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from sno_dist.errors import ArtifactError
from sno_dist.runtime import collectives

__all__ = ["check_seen", "check_shared", "disk_watched"]

PHASE = "looking for what rank 0 writes"
REFUSALS = {
    errno.EACCES,
    errno.EBUSY,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


def check_shared(folder: Path) -> None:
    """Refuse a folder where other ranks do not see what rank 0 writes.

    Args:
        folder: Made by rank 0.

    Raises:
        ArtifactError: On every rank, if any does not, or if rank 0 cannot write there.

    **Collective.**
    """
    mark = folder / collectives.from_main(lambda: _mark(folder), PHASE)
    try:
        check_seen(mark)
    finally:
        if collectives.world().is_main:
            mark.unlink()


def check_seen(file: Path) -> None:
    """Refuse a folder where a rank does not see a file that is there for rank 0.

    Raises:
        ArtifactError: On every rank, if any does not.

    **Collective.**
    """
    # unlike Path.exists, False too where the folder may not be looked into
    host = "" if os.path.exists(file) else socket.gethostname()
    hosts = collectives.gather(host, PHASE)
    if blind := [f"rank {rank} on {host}" for rank, host in enumerate(hosts) if host]:
        raise ArtifactError(
            "the nodes do not share this folder",
            where=file.parent.absolute(),
            got=f"what rank 0 writes is not seen by {blind[0]}"
            + (f" and {len(blind) - 1} more" * (len(blind) > 1)),
            fix="name a folder of a disk that all nodes share, by its absolute path",
        )


def _mark(folder: Path) -> str:
    """The name of a file that is just made, new: no network disk's cache knows of it yet."""
    name = f".shared-{secrets.token_hex(8)}"
    try:
        (folder / name).touch()
    except OSError as error:
        raise _unwritable(folder, error.strerror or str(error)) from error
    return name


@contextmanager
def disk_watched(folder: Path) -> Iterator[None]:
    """Tell of a disk that refuses what is written below a folder in one line.

    Raises:
        ArtifactError: If it does; other errors pass.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in REFUSALS or not _is_below(error.filename, folder):
            raise
        raise _unwritable(folder, error.strerror or str(error)) from error
    except SafetensorError as error:
        # Its own type for everything; what the system said stands in the message.
        if "I/O error" not in str(error):
            raise
        raise _unwritable(folder, str(error)) from error


def _is_below(name: str | None, folder: Path) -> bool:
    """Whether a file is the folder's; where the system names none, it was one of ours."""
    if name is None:
        return True
    return Path(name).absolute().is_relative_to(folder.absolute()) or not folder.is_dir()


def _unwritable(folder: Path, got: str) -> ArtifactError:
    return ArtifactError(
        "the folder cannot be written",
        where=folder,
        got=got,
        fix="choose another folder or mend its permissions and space",
    )
