"""Shards on two ranks: what rank 0 finds wrong of them is told by each."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.distributed.forked import Ended, start_ranks


def build(root: Path) -> list[Ended]:
    words = [
        f"shards.source={{kind: folder, path: {root}/data}}",
        f"shards.path={root}/shards",
        "model={autoencoder: {kind: identity}, likelihood: gaussian}",
    ]
    return [rank.end() for rank in start_ranks(2, root / "streams", "build-shards", *words)]


def test_damaged_shards_of_a_users_files_end_every_rank_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in "abc":
        np.save(tmp_path / f"data/{name}.npy", np.random.default_rng(0).normal(size=(60, 2)))
    assert [rank.code for rank in build(tmp_path)] == [0, 0]
    (tmp_path / "shards/manifest.json").write_text("{}")
    ended = build(tmp_path)
    assert [rank.code for rank in ended] == [4, 4]
    for number, rank in enumerate(ended):
        (line,) = rank.errors
        assert line.startswith(f"[rank {number}] error: a file of the artifact has the wrong size")
