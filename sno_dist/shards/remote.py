"""Reading from an address: with a bound on how long a server may be silent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import fsspec
from aiohttp import ClientError, ClientTimeout

__all__ = ["open_remote"]

SILENCE = 30.0
"""Seconds without a byte after which a server is given up: its own limit is on the whole answer,
which a long shard on a slow line takes longer than."""


@contextmanager
def open_remote(url: str) -> Iterator[BinaryIO]:
    """A file at an address, to be read.

    Raises:
        OSError: If it cannot be read, or nothing comes for SILENCE seconds.
    """
    options: dict[str, Any] = {}
    if url.startswith(("http://", "https://")):
        patience = ClientTimeout(total=None, sock_connect=SILENCE, sock_read=SILENCE)
        options = {"client_kwargs": {"timeout": patience}}
    try:
        with fsspec.open(url, "rb", **options) as stream:
            yield cast(BinaryIO, stream)
    except (OSError, asyncio.TimeoutError, ClientError) as error:
        if _is_of_silence(error):
            raise TimeoutError(f"nothing came for {SILENCE:g} s") from error
        raise OSError(str(error)) from error


def _is_of_silence(error: BaseException | None) -> bool:
    """Whether an error began with a timeout: fsspec makes of it that there is no such file."""
    while error is not None and not isinstance(error, asyncio.TimeoutError):
        error = error.__cause__ or error.__context__
    return error is not None
