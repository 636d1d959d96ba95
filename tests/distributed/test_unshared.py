"""Two ranks in two working directories: a relative path is a folder of each rank's own."""

from __future__ import annotations

from pathlib import Path

from tests.distributed.forked import Ended, start_ranks
from tests.pipeline.small import small_run


def apart(root: Path, *words: object) -> list[Ended]:
    nodes = [root / "node-0", root / "node-1"]
    for node in nodes:
        node.mkdir(exist_ok=True)
    ranks = start_ranks(2, root / "streams", *words, cwd=nodes.__getitem__)
    return [rank.end(100) for rank in ranks]


def test_a_stage_ends_on_all_ranks_with_one_line(tmp_path: Path) -> None:
    words = small_run(Path("shards"), tmp_path / "run", tmp_path / "judge")
    ended = apart(tmp_path, "build-shards", *words)
    assert [rank.code for rank in ended] == [4, 4], ended
    for number, rank in enumerate(ended):
        (line,) = rank.errors
        folder = tmp_path / f"node-{number}/.shards.partial"
        assert line.startswith(
            f"[rank {number}] error: the nodes do not share this folder | at: {folder} | "
            "got: what rank 0 writes is not seen by rank 1 on "
        )
        assert line.endswith("by its absolute path")


def test_what_rank_0_has_alone_is_told_too(tmp_path: Path) -> None:
    words = small_run(Path("shards"), tmp_path / "run", tmp_path / "judge")
    (tmp_path / "node-0").mkdir()
    (alone,) = start_ranks(
        1, tmp_path / "first", "build-shards", *words, cwd=lambda _: tmp_path / "node-0"
    )
    assert alone.end(100).code == 0
    ended = apart(tmp_path, "build-shards", *words)
    assert [rank.code for rank in ended] == [4, 4], ended
    for number, rank in enumerate(ended):
        (line,) = rank.errors
        folder = tmp_path / f"node-{number}/shards"
        assert f"the nodes do not share this folder | at: {folder} | got: " in line


def test_doctor_finds_it(tmp_path: Path) -> None:
    ended = apart(tmp_path, "doctor")
    assert [rank.code for rank in ended] == [1, 1], ended
    for rank, begin in zip(ended, ("FAIL", "[rank 1] FAIL"), strict=True):
        (line,) = (line for line in rank.out.splitlines() if "FAIL" in line)
        assert line.startswith(f"{begin}  shared        the nodes do not share this folder | at: ")
    assert not list(tmp_path.glob("node-*/*"))
