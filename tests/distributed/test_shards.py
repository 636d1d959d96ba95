"""Shards on two ranks: what rank 0 finds wrong of them is told by each."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from sno_dist.runtime.artifact import open_artifact
from sno_dist.shards.originals import CONTENTS
from tests.distributed.forked import Ended, start_ranks


def write(root: Path) -> None:
    (root / "data").mkdir()
    for name in "abc":
        np.save(root / f"data/{name}.npy", np.random.default_rng(0).normal(size=(60, 2)))


def build(root: Path, ranks: int = 2) -> list[Ended]:
    words = [
        f"shards.source={{kind: folder, path: {root}/data}}",
        f"shards.path={root}/shards",
        "model={autoencoder: {kind: identity}, likelihood: gaussian}",
    ]
    return [rank.end() for rank in start_ranks(ranks, root / "streams", "build-shards", *words)]


def test_damaged_shards_of_a_users_files_end_every_rank_with_one_line(tmp_path: Path) -> None:
    write(tmp_path)
    assert [rank.code for rank in build(tmp_path)] == [0, 0]
    (tmp_path / "shards/manifest.json").write_text("{}")
    ended = build(tmp_path)
    assert [rank.code for rank in ended] == [4, 4]
    for number, rank in enumerate(ended):
        (line,) = rank.errors
        assert line.startswith(f"[rank {number}] error: a file of the artifact has the wrong size")


def test_a_folder_of_other_files_is_refused_on_every_rank_and_kept(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/notes.txt").write_text("mine")
    ended = build(tmp_path)
    assert [rank.code for rank in ended] == [4, 4]
    for number, rank in enumerate(ended):
        (line,) = rank.errors
        assert line.startswith(f"[rank {number}] error: this would be replaced, and no stage wrote")
    assert (tmp_path / "shards/notes.txt").read_text() == "mine"


def test_what_two_ranks_hashed_one_rank_finds_the_same(tmp_path: Path) -> None:
    write(tmp_path)
    assert [rank.code for rank in build(tmp_path)] == [0, 0]
    files = open_artifact(tmp_path / "shards").inputs[CONTENTS]
    shutil.rmtree(tmp_path / "shards")
    assert [rank.code for rank in build(tmp_path, ranks=1)] == [0]
    assert open_artifact(tmp_path / "shards").inputs[CONTENTS] == files
