"""What is to be sampled: a pure function of config and manifest, the same in every world.

Units are cut by id first and dealt whole to ranks, so no sample depends on how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sno_dist.config.schema import Sampling
from sno_dist.errors import DataError
from sno_dist.runtime.rng import generator
from sno_dist.shards.manifest import Entry, Manifest, SplitName

__all__ = ["Unit", "context_of", "groups_of", "label", "plan_units"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """Distributions that are integrated together.

    Args:
        split: Theirs.
        k: Context samples; none: all there are.
        entries: The distributions.
    """

    split: SplitName
    k: int | None
    entries: Sequence[Entry]


def label(k: int | None) -> str:
    """How K is written in file names and tables: "k10", "all"."""
    return "all" if k is None else f"k{k}"


def plan_units(sampling: Sampling, manifest: Manifest, *, unseen: bool = True) -> list[Unit]:
    """All units: seen distributions with whole contexts, unseen ones with every K.

    Args:
        sampling: The config's section.
        manifest: The population.
        unseen: Whether the model can embed a distribution that it was not trained on.

    Raises:
        DataError: If a K is larger than an unseen distribution's context samples.
    """
    conditions: list[tuple[SplitName, int | None]] = [("seen", None)]
    if unseen:
        _check_sizes(sampling, manifest)
        for k in (*sampling.contexts, None):
            conditions.append(("unseen", k))
    width = max(1, sampling.batch // sampling.samples)
    units = []
    for split, k in conditions:
        entries = manifest.split(split)
        units += [
            Unit(split=split, k=k, entries=entries[first : first + width])
            for first in range(0, len(entries), width)
        ]
    return units


def groups_of(sampling: Sampling, k: int | None) -> NDArray[np.int64]:
    """Which context set each of a distribution's samples is drawn for: (samples,)."""
    index = np.arange(sampling.samples)
    return np.zeros_like(index) if k is None else index // sampling.per_context


def context_of(seed: int, entry: Entry, k: int | None, group: int) -> NDArray[np.int64]:
    """Sample indices of one context set, in the role `model`: (K,)."""
    count = entry.count("model")
    if k is None:
        return np.arange(count)
    return generator(seed, "context", entry.name, k, group).choice(count, k, replace=False)


def _check_sizes(sampling: Sampling, manifest: Manifest) -> None:
    largest = max(sampling.contexts, default=0)
    for entry in manifest.split("unseen"):
        if entry.count("model") < largest:
            raise DataError(
                "a context set is larger than the distribution",
                where=f"sampling.contexts, distribution {entry.name}",
                got=f"K = {largest}",
                expected=f"at most {entry.count('model')}",
                fix="drop that K from sampling.contexts",
            )
