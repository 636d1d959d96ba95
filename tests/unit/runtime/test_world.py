from __future__ import annotations

import numpy as np
import pytest

from sno_dist.runtime.world import World


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 64])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 64, 1001])
def test_shares_are_disjoint_complete_and_even(size: int, count: int) -> None:
    shares = [World(rank=rank, size=size).deal(count) for rank in range(size)]
    assert sorted(item for share in shares for item in share) == list(range(count))
    lengths = {len(share) for share in shares}
    assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 64])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 64, 1001])
def test_shares_by_cost_are_disjoint_complete_and_even(size: int, count: int) -> None:
    costs = np.random.default_rng(count).pareto(1.5, count).tolist()
    shares = [World(rank=rank, size=size).deal_evenly(costs) for rank in range(size)]
    assert sorted(item for share in shares for item in share) == list(range(count))
    lengths, sums = {len(share) for share in shares}, [sum(costs[i] for i in s) for s in shares]
    assert max(lengths) - min(lengths) <= 1
    assert max(sums) - min(sums) <= max(costs, default=0.0)


def test_one_process_owns_everything_and_writes() -> None:
    assert list(World().deal(3)) == [0, 1, 2]
    assert World().is_main


def test_exactly_one_rank_writes() -> None:
    assert [World(rank=rank, size=4).is_main for rank in range(4)] == [True, False, False, False]


@pytest.mark.parametrize(("rank", "size"), [(1, 1), (-1, 2), (0, 0), (5, 3)])
def test_a_rank_outside_of_its_world_is_refused(rank: int, size: int) -> None:
    with pytest.raises(ValueError, match=f"rank {rank} is not in a world of {size}"):
        World(rank=rank, size=size)
