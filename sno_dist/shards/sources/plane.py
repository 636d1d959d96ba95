"""What sources of laws in the plane have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sno_dist.shards.sources.source import Distribution, Domain, Role
from sno_dist.shards.sources.split import SplitName

__all__ = ["PlaneLaws"]


@dataclass(frozen=True, kw_only=True)
class PlaneLaws:
    """Named laws of points in the plane; with `draw` and `audit` a `Source`.

    Args:
        splits: The laws and which split each is in.
        counts: Samples per law in each role.
    """

    splits: Mapping[str, SplitName]
    counts: Mapping[Role, int]

    @property
    def domain(self) -> Domain:
        """Vectors."""
        return "vector"

    @property
    def shape(self) -> tuple[int, ...]:
        """(x, y)."""
        return (2,)

    @property
    def roles(self) -> Sequence[Role]:
        """No classifier: a law is not a class."""
        return tuple(self.counts)

    def distributions(self) -> Sequence[Distribution]:
        """The laws, in the order of `splits`."""
        return [Distribution(name=name, split=split) for name, split in self.splits.items()]
