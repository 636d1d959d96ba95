"""Which rank this process is, as a plain value, and the arithmetic of dealing work to ranks."""

from __future__ import annotations

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
