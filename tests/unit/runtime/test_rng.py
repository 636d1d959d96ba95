from __future__ import annotations

import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from sno_dist.runtime.rng import generator, normals

KEYS = [(0, "noise", 1, 2), (1, "noise", 1, 2), (0, "time", 1, 2), (0, "noise", 2, 1), (0, "noise")]


def draw(seed: int, stream: str, *ids: int | str) -> list[int]:
    return generator(seed, stream, *ids).integers(0, 2**63, 4).tolist()


def test_the_same_key_gives_the_same_numbers_in_another_process() -> None:
    code = (
        "from sno_dist.runtime.rng import generator;"
        "print(generator(3, 'plan', 7, 'a').integers(0, 2**63, 4).tolist())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(draw(3, "plan", 7, "a"))


def test_every_part_of_the_key_counts() -> None:
    assert len({tuple(draw(*key)) for key in KEYS}) == len(KEYS)


@pytest.mark.parametrize(("one", "other"), [(("a", "bc"), ("ab", "c")), ((1, 12), (11, 2))])
def test_keys_do_not_run_together(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    assert draw(0, "noise", *one) != draw(0, "noise", *other)


def test_streams_are_uncorrelated_standard_normals() -> None:
    # 200 means of 4,000 values: beyond 5 standard errors once in 9,000 runs over all of them.
    rows = normals([generator(0, "noise", i) for i in range(200)], (4000,))
    assert abs(rows.mean(1)).max() < 5 / np.sqrt(4000)
    products = [float(a @ b) / 4000 for a, b in pairwise(rows)]
    assert max(map(abs, products)) < 5 / np.sqrt(4000)


def test_a_row_depends_on_its_own_generator_alone() -> None:
    together = normals([generator(0, "noise", i) for i in range(5)], (2, 3))
    alone = normals([generator(0, "noise", 3)], (2, 3))
    assert together.dtype == np.float32
    assert np.array_equal(together[3], alone[0])


def test_the_next_call_continues_the_streams() -> None:
    sources = [generator(0, "noise", i) for i in range(2)]
    parts = [normals(sources, (3,)), normals(sources, (3,))]
    assert not np.array_equal(*parts)
