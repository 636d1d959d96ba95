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

__all__ = ["Groups", "Rounding", "require_finite", "safe_names"]

_LONGEST = 80  # characters, far below any file system's 255 bytes

COARSE = 0.05
"""Rounding of a value, in deviations of its column, that would be seen in samples."""
CONSTANT = 1e-14
"""Deviation of a column, as a share of its mean, that is float64's own rounding."""
AT_ONCE = 1 << 22
"""Numbers whose rounding is looked at together, to bound memory."""


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


class Rounding:
    """What float32 takes from each column of vectors, beside how far the column varies.

    That is over all distributions, since a model sees samples in deviations of them all: one of
    them may stand still in a column.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean = self._square = self._error = np.zeros(1)

    def add(self, vectors: NDArray[Any]) -> None:
        """Take in (n, D) vectors as they were given, finite in float32."""
        rows = max(1, AT_ONCE // vectors.shape[1])
        for first in range(0, len(vectors), rows):
            self._add(np.asarray(vectors[first : first + rows], np.float64))

    def _add(self, exact: NDArray[np.float64]) -> None:
        # Counted from the first row, a constant has no deviation, not even that of its sum.
        steps = exact - exact[0]
        mean = steps.mean(0)
        apart = exact[0] + mean - self._mean
        share = len(exact) / (self._count + len(exact))
        within = np.square(steps - mean).sum(0)
        self._square = self._square + within + share * self._count * np.square(apart)
        self._mean = self._mean + share * apart
        self._count += len(exact)
        lost = np.abs(exact.astype(np.float32) - exact).max(0)
        self._error = np.maximum(self._error, lost)

    def check(self, where: object, columns: Sequence[str]) -> None:
        """Refuse columns whose differences are lost in float32.

        Args:
            where: The file or folder that they are in.
            columns: Their names.

        Raises:
            DataError: Naming the first of them.
        """
        deviation = np.sqrt(self._square / max(self._count, 1))
        varies = deviation > CONSTANT * np.abs(self._mean)
        lost = varies & (self._error > COARSE * deviation)
        if lost.any():
            column = int(np.argmax(lost))
            raise DataError(
                "differences within a column are lost in float32",
                where=f"{where}, column {columns[column]}",
                got=f"values about {self._mean[column]:.6g} that differ by {deviation[column]:.3g}",
                fix="subtract an offset from the column",
            )
