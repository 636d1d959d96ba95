"""Which distributions are never trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sno_dist.config.schema import Split
from sno_dist.runtime.rng import generator

__all__ = ["SplitName", "assign"]

SplitName = Literal["seen", "unseen"]


def assign(names: Sequence[str], split: Split) -> dict[str, SplitName]:
    """Deal distributions to the two splits by a seeded permutation.

    The permutation acts on the sorted names, so the answer depends on the set of names and not on
    the order they come in. round(unseen * n) are unseen, but always one at least is seen.

    Args:
        names: The distributions, each once.
        split: The share and the seed.

    Returns:
        The split of each name, in the order of `names`.

    Raises:
        ValueError: If a name comes twice.
    """
    ordered = sorted(set(names))
    if len(ordered) != len(names):
        raise ValueError("the names of the distributions repeat")
    held_out = min(round(split.unseen * len(ordered)), max(len(ordered) - 1, 0))
    order = generator(split.seed, "split").permutation(len(ordered))
    unseen = {ordered[i] for i in order[:held_out]}
    return {name: "unseen" if name in unseen else "seen" for name in names}
