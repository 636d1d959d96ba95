"""This rank's share of some work: dealt, with a bar, and stoppable between two items."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from sno_dist.errors import Preempted
from sno_dist.runtime import collectives, preemption
from sno_dist.runtime.progress import Progress

__all__ = ["share_of"]

T = TypeVar("T")


def share_of(items: Sequence[T], phase: str, size: Callable[[T], int] = lambda _: 1) -> Iterator[T]:
    """The items that this rank owns, one after the other.

    Args:
        items: All of them, the same on every rank.
        phase: What is being done, for the bar and for errors.
        size: How far an item moves the bar.

    Raises:
        Preempted: After the last item, if any rank was asked to stop; that rank ended early.

    **Collective** at its end, so it is to be gone through whole.
    """
    mine = [items[index] for index in collectives.world().deal(len(items))]
    with Progress(sum(map(size, mine)), phase) as progress:
        for item in mine:
            if preemption.requested():
                break
            yield item
            progress.advance(size(item))
    if collectives.any_rank(preemption.requested(), phase):
        raise Preempted(f"asked to stop while {phase}", fix="run the same command to go on")
