from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sno_dist.runtime.artifact import open_artifact
from tests.distributed.launch import bare_ranks, launch

PROGRAM = Path(__file__).with_name("collectives_program.py")
Facts = dict[int, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    """World size -> what each rank saw."""
    seen: Facts = {}
    for size in (1, 2, 3):
        folder = tmp_path_factory.mktemp(f"ranks-{size}")
        (folder / "data").mkdir()
        for name in "abcd":
            np.save(folder / f"data/{name}.npy", np.arange(30.0).reshape(15, 2))
        done = launch(size, PROGRAM, "facts", folder, timeout=60)
        assert done.returncode == 0, done.stderr
        assert list(open_artifact(folder / "sealed", "thing").files) == list("01234")
        seen[size] = [json.loads((folder / f"{r}.json").read_text()) for r in range(size)]
    return seen


def test_the_world_has_the_size_that_was_asked_for(facts: Facts) -> None:
    assert {size: {rank["size"] for rank in ranks} for size, ranks in facts.items()} == {
        1: {1},
        2: {2},
        3: {3},
    }


def test_sums_filled_by_owners_are_the_same_bits_in_every_world(facts: Facts) -> None:
    assert len({rank["sum"] for ranks in facts.values() for rank in ranks}) == 1


def test_a_sum_leaves_its_input_alone(facts: Facts) -> None:
    assert all(rank["own kept"] for ranks in facts.values() for rank in ranks)


def test_a_flag_raised_by_any_one_rank_is_seen_by_all(facts: Facts) -> None:
    for size, ranks in facts.items():
        assert all(rank["raised by"] == [True] * size for rank in ranks)
        assert not any(rank["raised by none"] for rank in ranks)


def test_broadcast_gives_every_rank_what_rank_zero_has(facts: Facts) -> None:
    assert all(rank["broadcast"] == [0, 3.25] for ranks in facts.values() for rank in ranks)


def test_gather_is_in_rank_order_on_every_rank(facts: Facts) -> None:
    for size, ranks in facts.items():
        assert all(rank["gather"] == [f"rank {r}" for r in range(size)] for rank in ranks)


def test_ranks_that_share_an_audit_see_every_sample(facts: Facts) -> None:
    for rank in (rank for ranks in facts.values() for rank in ranks):
        # all four hold the same 15, and each deals 2 to the reference
        assert rank["audit"]["samples"] == {"model": 52, "reference": 8}
        assert rank["audit"] == facts[1][0]["audit"]
    assert 2 <= facts[1][0]["audit"]["shared_total"] <= 8


def test_a_lost_rank_ends_the_others_with_one_line_that_names_the_phase() -> None:
    ranks = bare_ranks(3, PROGRAM, "lose", 1)
    began = time.monotonic()
    try:
        heard = [rank.communicate(timeout=60)[1] for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert time.monotonic() - began < 60
    assert ranks[1].returncode == -9
    for rank in (0, 2):
        start = f"[rank {rank}] error: rank {rank} lost contact with another rank during the second"
        *before, line = heard[rank].strip().splitlines()
        assert before == ["3 ranks on cpu"] * (rank == 0), heard[rank]
        assert line.startswith(start)
        assert ranks[rank].returncode == 5


def test_a_rank_that_stands_still_ends_the_others_when_their_patience_ends() -> None:
    ranks = bare_ranks(2, PROGRAM, "stall", 1, env={"SNO_DIST_TIMEOUT": "5"})
    try:
        heard = ranks[0].communicate(timeout=100)[1]
    finally:
        for rank in ranks:
            rank.kill()
        ranks[1].communicate()
    assert ranks[0].returncode == 5
    first, line = heard.strip().splitlines()
    assert first == "2 ranks on cpu"
    assert line.startswith("[rank 0] error: rank 0 lost contact with another rank during the")
    assert "5000ms" in line
