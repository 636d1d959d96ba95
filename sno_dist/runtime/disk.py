"""A disk that cannot be written: full, read-only, or not ours."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from sno_dist.errors import ArtifactError

__all__ = ["disk_watched"]

REFUSALS = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


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
