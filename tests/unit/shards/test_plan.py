"""The plan: pure, balanced, disjoint; and an error where a distribution is too small."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from sno_dist.errors import DataError
from sno_dist.shards.plan import StepPlan

COUNTS = [50, 60, 70, 80, 90]


def plan(**changes: object) -> StepPlan:
    settings = {"seed": 0, "counts": COUNTS, "distributions": 3, "targets": 8}
    settings |= {"references": 0, "context": (1, 30)}
    return StepPlan(**{**settings, **changes})  # pyright: ignore


def test_a_draw_needs_nothing_before_it() -> None:
    first = plan()
    for step in range(5):
        first.draw(step, 0)
    late, fresh = first.draw(7, 2), plan().draw(7, 2)
    np.testing.assert_array_equal(late.context, fresh.context)
    np.testing.assert_array_equal(late.targets, fresh.targets)
    assert late.row == fresh.row


def test_context_and_targets_are_disjoint_and_in_range() -> None:
    for step in range(50):
        for slot in range(3):
            draw = plan().draw(step, slot)
            both = np.concatenate([draw.context, draw.targets])
            assert len(set(both.tolist())) == len(both)
            assert both.max() < COUNTS[draw.row]
            assert len(draw.targets) == 8
            assert 1 <= len(draw.context) <= 30


def test_distributions_come_in_whole_rounds() -> None:
    rows = [plan().draw(step, slot).row for step in range(10) for slot in range(3)]
    assert set(Counter(rows).values()) == {6}
    rounds = [tuple(rows[i : i + 5]) for i in range(0, 30, 5)]
    assert all(sorted(r) == [0, 1, 2, 3, 4] for r in rounds)
    assert len(set(rounds)) > 1


@pytest.mark.parametrize(
    ("exponent", "below_ten"),
    [
        (0.0, 9 / 100),
        (1.0, np.log(10) / np.log(101)),
        (1.5, (1 - 10**-0.5) / (1 - 101**-0.5)),
    ],
)
def test_context_sizes_follow_their_power_law(exponent: float, below_ten: float) -> None:
    own = plan(counts=[500] * 5, context=(1, 100), exponent=exponent)
    sizes = [size for step in range(700) for size in own.context_sizes(step)]
    # the standard error over 2,100 draws is at most .011
    assert np.mean(np.array(sizes) < 10) == pytest.approx(below_ten, abs=0.04)
    assert min(sizes) == 1 or exponent == 0
    assert max(sizes) > 90


def test_a_small_distribution_keeps_its_targets() -> None:
    draw = plan(counts=[10] * 5, context=(1, 30), targets=8).draw(0, 0)
    assert len(draw.targets) == 8
    assert 1 <= len(draw.context) <= 2


def test_too_small_is_an_error_that_names_it() -> None:
    names = ["a", "b", "c", "d", "e"]
    with pytest.raises(DataError, match=r"distribution c \| got: 8 samples \| expected: .* 1 \+ 8"):
        plan(counts=[9, 9, 8, 9, 9]).check(names)
    with pytest.raises(DataError, match="distribution a"):
        plan(counts=[1, 9, 9, 9, 9]).check(names)


def test_references_are_neither_context_nor_targets() -> None:
    drawn = [plan(references=7).draw(step, slot) for step in range(20) for slot in range(3)]
    for draw in drawn:
        parts = (draw.context, draw.targets, draw.references)
        assert len(draw.references) == 7
        assert len(np.unique(np.concatenate(parts))) == sum(map(len, parts))
    with pytest.raises(DataError, match="smaller than its context set"):
        plan(references=42).check([str(count) for count in COUNTS])


def test_context_sizes_are_those_of_the_draws() -> None:
    own = plan(counts=[10, 60, 500], context=(1, 100))
    for step in range(20):
        drawn = [len(own.draw(step, slot).context) for slot in range(own.distributions)]
        assert own.context_sizes(step) == drawn
