"""Fetch a gzip-compressed file from mirrors into the user's cache, and verify it."""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
import urllib.request
import zlib
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path

from sno_dist.errors import DataError

__all__ = ["cache_folder", "fetch"]

_TIMEOUT = 60.0  # seconds without a byte


def cache_folder() -> Path:
    """Where fetched data is kept: $XDG_CACHE_HOME/sno_dist, or ~/.cache/sno_dist."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "sno_dist"


def fetch(name: str, md5: str, mirrors: Sequence[str], folder: Path) -> Path:
    """The file `name` in `folder`, fetched as `<mirror><name>.gz` unless it is there and whole.

    The checksum is of the uncompressed bytes, because mirrors compress differently. The file
    appears by a rename, so processes that fetch at the same time cannot see half of it.

    Args:
        name: The file's name without .gz.
        md5: Of the uncompressed bytes.
        mirrors: URL prefixes, tried in order.
        folder: Where to keep it; made if missing.

    Raises:
        DataError: If no mirror gives the right bytes, or the folder cannot be written.
    """
    target = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.is_file() and _md5(target.read_bytes()) == md5:
            return target
        data = _download(name, md5, mirrors)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=f".{name}.", delete=False) as partial:
            partial.write(data)
        os.replace(partial.name, target)
    except OSError as error:
        raise DataError(
            "cannot keep fetched data",
            where=target,
            got=error,
            fix="set XDG_CACHE_HOME to a folder that can be written",
        ) from error
    return target


def _download(name: str, md5: str, mirrors: Sequence[str]) -> bytes:
    refusals = []
    for mirror in mirrors:
        url = f"{mirror}{name}.gz"
        try:
            with urllib.request.urlopen(url, timeout=_TIMEOUT) as reply:
                data = gzip.decompress(reply.read())
        except (OSError, EOFError, HTTPException, zlib.error) as error:
            refusals.append(f"{url}: {error}")
            continue
        if _md5(data) == md5:
            return data
        refusals.append(f"{url}: md5 {_md5(data)}")
    raise DataError(
        f"cannot fetch {name}",
        got="; ".join(refusals),
        expected=f"md5 {md5} of the uncompressed file",
        fix="give the files yourself: set shards.source.path to the folder that holds them",
    )


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
