"""What is to be sampled: a pure function of config and manifest, the same in every world.

Units are cut by id first and dealt whole to ranks, so no sample depends on how many there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sno_dist.config.schema import Baseline, Sampling
from sno_dist.errors import DataError
from sno_dist.runtime.rng import generator
from sno_dist.shards.manifest import Entry, Manifest, SplitName, evenly

__all__ = [
    "Method",
    "Unit",
    "context_of",
    "groups_of",
    "label",
    "plan_units",
    "size_label",
]

Method: TypeAlias = Literal["operator"] | Baseline

WHOLE: frozenset[Method] = frozenset({"individual", "pooled"})
"""Baselines of whole context sets alone: one is too dear to train for every K, one has no K."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """Distributions that are integrated together.

    Args:
        split: Theirs.
        k: Context samples; none: all there are.
        entries: The distributions.
        method: What draws them.
    """

    split: SplitName
    k: int | None
    entries: Sequence[Entry]
    method: Method = "operator"


def size_label(k: int | None) -> str:
    """How K is written as a key and for a person: "10", "all"."""
    return "all" if k is None else str(k)


def label(k: int | None, method: Method = "operator") -> str:
    """How K and method are written in file names: "k10", "all"; of a baseline "jitter-k10"."""
    own = "all" if k is None else f"k{k}"
    return own if method == "operator" else f"{method}-{own}"


def plan_units(sampling: Sampling, manifest: Manifest, *, unseen: bool = True) -> list[Unit]:
    """All units: seen distributions with whole contexts, unseen ones with every K.

    The operator's come first, then each baseline's, of the same distributions.

    Args:
        sampling: The config's section.
        manifest: The population.
        unseen: Whether the model can embed a distribution that it was not trained on.

    Raises:
        DataError: If a K is larger than an unseen distribution's context samples, or the nearest
            of other distributions is asked for where there is no other.
    """
    if unseen:
        _check_sizes("sampling.contexts", sampling.contexts, manifest)
    if "finetuned" in sampling.baselines:
        _check_sizes("sampling.finetuned.contexts", sampling.finetuned.contexts, manifest)
    if "nearest" in sampling.baselines:
        _check_neighbours(manifest)
    methods: tuple[Method, ...] = ("operator", *sampling.baselines)
    return [
        unit
        for method in methods
        for split, k in _conditions(sampling, method, unseen)
        for unit in _cut(
            sampling, method, split, k, evenly(manifest.split(split), sampling.distributions)
        )
    ]


def _conditions(
    sampling: Sampling, method: Method, unseen: bool
) -> list[tuple[SplitName, int | None]]:
    """Splits and K of a method; fine-tuning needs no embedding, and seen sets no fine-tuning."""
    if method == "finetuned":
        return [("unseen", k) for k in (*sampling.finetuned.contexts, None)]
    known: list[tuple[SplitName, int | None]] = [("seen", None)]
    if not unseen:
        return known
    contexts = () if method in WHOLE else sampling.contexts
    return [*known, *(("unseen", k) for k in (*contexts, None))]


def groups_of(sampling: Sampling, k: int | None, method: Method = "operator") -> NDArray[np.int64]:
    """Which context set each of a distribution's samples is drawn for: (samples,).

    There is one whole set, and a model is trained on for one set of a size alone.
    """
    index = np.arange(sampling.samples)
    one = k is None or method == "finetuned"
    return np.zeros_like(index) if one else index // sampling.per_context


def context_of(seed: int, entry: Entry, k: int | None, group: int) -> NDArray[np.int64]:
    """Sample indices of one context set, in the role `model`: (K,)."""
    count = entry.count("model")
    if k is None:
        return np.arange(count)
    return generator(seed, "context", entry.name, k, group).choice(count, k, replace=False)


def _cut(
    sampling: Sampling, method: Method, split: SplitName, k: int | None, entries: Sequence[Entry]
) -> list[Unit]:
    width = max(1, sampling.batch // sampling.samples)
    if method == "individual":
        width = sampling.individual.group
    elif method == "finetuned":
        width = sampling.finetuned.group
    return [
        Unit(split=split, k=k, entries=entries[first : first + width], method=method)
        for first in range(0, len(entries), width)
    ]


def _check_neighbours(manifest: Manifest) -> None:
    if len(manifest.split("seen")) < 2:
        raise DataError(
            "a seen distribution has no other that could be the nearest",
            where="sampling.baselines",
            got="1 seen distribution",
            expected="2 or more",
            fix="drop nearest from sampling.baselines",
        )


def _check_sizes(where: str, contexts: Sequence[int], manifest: Manifest) -> None:
    largest = max(contexts, default=0)
    for entry in manifest.split("unseen"):
        if entry.count("model") < largest:
            raise DataError(
                "a context set is larger than the distribution",
                where=f"{where}, distribution {entry.name}",
                got=f"K = {largest}",
                expected=f"at most {entry.count('model')}",
                fix=f"drop that K from {where}",
            )
