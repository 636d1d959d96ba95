"""Which rank this process is, as a plain value, and the arithmetic of dealing work to ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["World"]


@dataclass(frozen=True, kw_only=True, slots=True)
class World:
    """One process among `size`; can be made up in a test without any process group.

    Args:
        rank: This process, 0 <= rank < size.
        size: How many processes share the work.
    """

    rank: int = 0
    size: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.size:
            raise ValueError(f"rank {self.rank} is not in a world of {self.size}")

    @property
    def is_main(self) -> bool:
        """Whether this rank writes what is written once."""
        return self.rank == 0

    def deal(self, count: int) -> range:
        """The items of `range(count)` that this rank owns: every `size`-th, from `rank` on.

        Over all ranks the shares are disjoint, complete, and differ in length by at most one.
        """
        return range(self.rank, count, self.size)

    def deal_evenly(self, costs: Sequence[float]) -> list[int]:
        """The items that this rank owns where each has a cost: dealt dearest first, there and back.

        Shares are disjoint, complete, differ in length by at most one, and in their sum of costs
        by at most the dearest item's. In order.
        """
        dearest_first = sorted(range(len(costs)), key=lambda item: (-costs[item], item))
        own: list[int] = []
        for start in range(0, len(costs), self.size):
            back = start // self.size % 2 == 1
            place = start + (self.size - 1 - self.rank if back else self.rank)
            own += dearest_first[place : place + 1]
        return sorted(own)
