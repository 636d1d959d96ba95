from __future__ import annotations

import pytest

from sno_dist.config.schema import Split
from sno_dist.shards.sources.split import assign

NAMES = [f"{i:02d}" for i in range(100)]


def unseen(split: Split, names: list[str] = NAMES) -> set[str]:
    return {name for name, which in assign(names, split).items() if which == "unseen"}


@pytest.mark.parametrize(("share", "count"), [(0.0, 0), (0.3, 30), (0.296, 30), (0.999, 99)])
def test_the_share_is_rounded_to_whole_distributions(share: float, count: int) -> None:
    assert len(unseen(Split(unseen=share))) == count


@pytest.mark.parametrize("count", [1, 2, 7])
def test_one_distribution_at_least_is_seen(count: int) -> None:
    assert len(unseen(Split(unseen=1.0), NAMES[:count])) == count - 1


def test_the_seed_decides_and_the_order_of_the_names_does_not() -> None:
    assert unseen(Split(seed=3)) == unseen(Split(seed=3), NAMES[::-1])
    assert unseen(Split(seed=3)) != unseen(Split(seed=4))
    assert list(assign(NAMES[::-1], Split())) == NAMES[::-1]


def test_no_name_is_favoured() -> None:
    # Over 400 seeds a name is unseen Binomial(400, 0.3) times: mean 120, sd 9.17. Six sd over 100
    # names: false failure below 1e-6.
    times = dict.fromkeys(NAMES, 0)
    for seed in range(400):
        for name in unseen(Split(seed=seed)):
            times[name] += 1
    assert all(abs(count - 120) < 55 for count in times.values())


def test_repeated_names_are_refused() -> None:
    with pytest.raises(ValueError, match="repeat"):
        assign(["a", "a"], Split())
