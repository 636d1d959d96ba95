"""Samples that come in named groups: what a reader of one file format provides."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sno_dist.errors import DataError
from sno_dist.shards.sources.source import Domain

__all__ = ["Groups", "require_finite", "safe_names"]

_LONGEST = 80  # characters, far below any file system's 255 bytes


class Groups(Protocol):
    """Groups of samples of one shape, each group a distribution."""

    @property
    def domain(self) -> Domain:
        """The kind of sample."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """One sample's shape."""
        ...

    @property
    def sizes(self) -> Mapping[str, int]:
        """Samples per group, by the name that the user gave it."""
        ...

    def read(self, group: str, rows: NDArray[np.intp]) -> NDArray[np.generic]:
        """Some samples of a group: (len(rows), *shape), uint8 images or float32 vectors.

        Raises:
            DataError: If a sample cannot be read.
        """
        ...


def safe_names(given: Sequence[str]) -> dict[str, str]:
    """Legal, portable and unique file names for the names that the user gave.

    Letters and digits of ASCII, "_" and "-" stay; the dot goes too, because tar readers take all
    after the first one for the extension. A name that had to change, or that differs from another
    by case alone, ends in a hash of the original.

    Args:
        given: Names, each once.

    Returns:
        The given name of each safe one, in the same order.

    Raises:
        DataError: If a name is not text.
    """
    folded = Counter(name.casefold() for name in given)
    names = {}
    for name in given:
        _require_text(name)
        safe = re.sub(r"[^A-Za-z0-9_-]", "_", name)[:_LONGEST]
        if safe != name or not name or folded[name.casefold()] > 1:
            safe = f"{safe}-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"
        names[safe] = name
    return names


def _require_text(name: str) -> None:
    """Refuse what a file system gives for a name that is not of its encoding."""
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            "a distribution's name is not text", got=ascii(name), expected="UTF-8", fix="rename it"
        ) from error


def require_finite(vectors: NDArray[np.floating[Any]], where: object) -> None:
    """Refuse NaN and infinity in (n, D) vectors.

    Raises:
        DataError: Naming the first bad row and column, and how many entries are bad.
    """
    bad = ~np.isfinite(vectors)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise DataError(
            "a sample is not finite",
            where=f"{where}, row {row}, column {column} (from 0)",
            got=f"{vectors[row, column]}, and {int(bad.sum()) - 1} more entries",
            expected="finite numbers within float32",
            fix="drop or fill those rows",
        )
