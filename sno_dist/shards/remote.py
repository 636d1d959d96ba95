"""Reading from an address: with a bound on how long a server may be silent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fsspec
from aiohttp import ClientError, ClientTimeout

__all__ = ["fetch", "read"]

SILENCE = 20.0
"""Seconds without a byte after which a server is given up: its own limit is on the whole answer,
which a long shard on a slow line takes longer than."""


def fetch(url: str, path: Path) -> None:
    """Bring a file from an address.

    Raises:
        OSError: If it cannot be read, or nothing comes for SILENCE seconds.
        ValueError: If the address is of no known kind.
    """
    system, name = _system(url)
    with _silence_told():
        system.get_file(name, str(path))


def read(url: str) -> bytes:
    """The content of a file at an address.

    Raises:
        OSError: If it cannot be read, or nothing comes for SILENCE seconds.
        ValueError: If the address is of no known kind.
    """
    system, name = _system(url)
    with _silence_told():
        return system.cat_file(name)


def _system(url: str) -> tuple[Any, str]:
    options: dict[str, Any] = {}
    if url.startswith(("http://", "https://")):
        patience = ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
        options = {"client_kwargs": {"timeout": patience}}
    try:
        return fsspec.url_to_fs(url, **options)
    except ImportError as error:
        raise OSError(f"{error}; pip install 'sno-dist[s3]' for s3://") from error


@contextmanager
def _silence_told() -> Iterator[None]:
    try:
        yield
    except (OSError, asyncio.TimeoutError, ClientError) as error:
        if _is_of_silence(error):
            raise TimeoutError(f"nothing came for {SILENCE:g} s") from error
        raise OSError(str(error)) from error


def _is_of_silence(error: BaseException | None) -> bool:
    """Whether an error began with a timeout, whatever fsspec made of it."""
    while error is not None and not isinstance(error, asyncio.TimeoutError):
        error = error.__cause__ or error.__context__
    return error is not None
