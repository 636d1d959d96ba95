"""Samples taken evenly over distributions of any size."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from sno_dist.embedding.stream import evenly


@dataclass(frozen=True)
class Ragged:
    """As much of `SampleSets` as is asked: sample j of set i is (i, j)."""

    lengths: list[int]
    dims: int = 2

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, item: int, count: int) -> torch.Tensor:
        return torch.tensor([[item, place] for place in range(count)]).double()


@pytest.mark.parametrize(
    ("lengths", "count", "shares"),
    [
        ([80] * 4, 100, [25] * 4),
        ([3, 80, 80, 80], 100, [3, 32, 32, 32]),
        ([3, 5], 100, [3, 5]),
        ([80] * 4, 2, [1, 0, 0, 1]),
    ],
)
def test_a_small_set_gives_all_it_has_and_the_others_make_up_for_it(
    lengths: list[int], count: int, shares: list[int]
) -> None:
    found = evenly(Ragged(lengths), count)  # pyright: ignore[reportArgumentType]
    expected = [[i, j] for i, share in enumerate(shares) for j in range(share)]
    assert found.tolist() == expected
