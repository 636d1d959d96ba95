"""Random numbers that are a function of what they are for, never of who draws them.

Every stream is keyed by (seed, stream name, ids). A rank, a loader worker or a resumed run that
asks for the same key gets the same numbers, so results do not depend on the world's size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["generator", "normals"]


def generator(seed: int, stream: str, *ids: int | str) -> np.random.Generator:
    """The generator of one key.

    Philox is counter-based: distinct 128-bit keys give independent streams, and making a
    generator costs microseconds, so there can be one for every sample.

    Args:
        seed: The run's seed.
        stream: What the numbers are for, such as "noise" or "plan".
        ids: Which one: a step, a slot, a distribution's name, a sample's index.
    """
    name = "\x1f".join((str(seed), stream, *map(str, ids)))
    key = hashlib.blake2b(name.encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key, "little")))


def normals(generators: Sequence[np.random.Generator], shape: Sequence[int]) -> NDArray[np.float32]:
    """The next standard normals of each generator, stacked.

    Returns:
        (len(generators), *shape) float32; row i depends on generator i alone.
    """
    rows = np.empty((len(generators), *shape), np.float32)
    for row, source in zip(rows, generators, strict=True):
        source.standard_normal(out=row, dtype=np.float32)
    return rows
