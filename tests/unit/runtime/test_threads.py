from __future__ import annotations

import os

import pytest
import torch

from sno_dist.runtime.threads import lent_threads


def test_a_rank_that_works_alone_takes_the_threads_of_those_that_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores = len(os.sched_getaffinity(0))
    own = torch.get_num_threads()
    for ranks in (1, 2, 4 * cores):
        monkeypatch.setenv("LOCAL_WORLD_SIZE", str(ranks))
        with lent_threads():
            assert torch.get_num_threads() == max(own, min(own * ranks, cores))
        assert torch.get_num_threads() == own


def test_it_takes_no_core_that_it_was_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    given, own = os.sched_getaffinity(0), torch.get_num_threads()
    os.sched_setaffinity(0, {min(given)})
    try:
        with lent_threads():
            assert torch.get_num_threads() == own
    finally:
        os.sched_setaffinity(0, given)
