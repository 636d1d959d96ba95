from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from sno_dist.runtime.writing import writing
from tests.unit.cli.run_cli import call

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "embedding"
    with writing(path, "embedding", {"seed": 3, "upstream": "abc"}) as folder:
        (folder / "table").write_bytes(bytes(3000))
        (folder / "names").write_text("a b")
    return path


def test_an_artifact_is_told_with_kind_inputs_files_and_bytes(
    capsys: Capture, artifact: Path
) -> None:
    told = call(capsys, "inspect", artifact)
    assert (told.code, told.err) == (0, "")
    lines = told.out.splitlines()
    assert lines[:3] == ["kind    embedding", "files   2", "bytes   3003"]
    assert "input   seed: 3" in lines
    assert "input   upstream: abc" in lines
    assert lines[-1].startswith("whole")


def test_a_flipped_byte_is_told_with_the_file(capsys: Capture, artifact: Path) -> None:
    content = bytearray((artifact / "table").read_bytes())
    content[1234] ^= 1
    (artifact / "table").write_bytes(content)
    told = call(capsys, "inspect", artifact)
    assert told.code == 4
    assert told.err.startswith(
        f"error: a file of the artifact is damaged | at: {artifact / 'table'} | got: sha256 "
    )


def test_a_cut_file_is_told(capsys: Capture, artifact: Path) -> None:
    (artifact / "names").write_text("a")
    assert "has the wrong size" in call(capsys, "inspect", artifact).err


def test_an_unreadable_complete_is_told(capsys: Capture, artifact: Path) -> None:
    (artifact / "COMPLETE").write_text("{")
    told = call(capsys, "inspect", artifact)
    assert told.code == 4
    assert told.err.startswith("error: COMPLETE cannot be read")


def test_a_run_lists_the_state_of_its_stages_and_is_verified(
    capsys: Capture, artifact: Path
) -> None:
    run = artifact.parent
    (run / "training/step-00000100").mkdir(parents=True)
    (run / ".sampling.partial").mkdir()
    left = run / "training/.step-00000050.old"  # half removed when its remover was killed
    left.mkdir()
    (left / "COMPLETE").write_text((run / "embedding/COMPLETE").read_text())
    told = call(capsys, "inspect", run)
    assert [line.split() for line in told.out.splitlines()[1:]] == [
        ["embedding", "complete"],
        ["training", "begun"],
        ["sampling", "begun"],
        ["evaluation", "absent"],
        ["whole", "embedding"],
    ]


def test_training_tells_its_newest_step(capsys: Capture, tmp_path: Path) -> None:
    for name in ("failed-step-00000007", "step-00000100", "step-00000050"):
        with writing(tmp_path / "training" / name, "checkpoint", {}) as folder:
            (folder / "weights").write_text("w")
    assert "training    step 100\n" in call(capsys, "inspect", tmp_path).out


def test_a_shard_lists_its_records(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "model-00000.tar"
    with tarfile.open(path, "w") as tar:
        for name, size in (("42/0.x.npy", 10), ("42/0.json", 2), ("43/0.x.npy", 7)):
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, io.BytesIO(bytes(size)))
    told = call(capsys, "inspect", path)
    assert told.out.splitlines()[:2] == ["kind    shard", "records 2"]
    assert told.out.splitlines()[3:] == [
        "record  42/0: x.npy 10 B, json 2 B",
        "record  43/0: x.npy 7 B",
        "whole   not known: no COMPLETE above tells of it",
    ]


def test_a_shard_is_verified_by_the_folder_it_was_built_in(capsys: Capture, tmp_path: Path) -> None:
    with writing(tmp_path / "shards", "shards", {}) as folder:
        shard = folder / "seen/00/model-00000.tar"
        shard.parent.mkdir(parents=True)
        with tarfile.open(shard, "w") as tar:
            member = tarfile.TarInfo("00/0.x.npy")
            member.size = 1000
            tar.addfile(member, io.BytesIO(bytes(1000)))
    shard = tmp_path / "shards/seen/00/model-00000.tar"
    told = call(capsys, "inspect", shard)
    assert told.out.splitlines()[-1] == "whole   its size and sha256 are as COMPLETE says"
    content = bytearray(shard.read_bytes())
    content[700] ^= 1  # of a sample: the tar itself still reads
    shard.write_bytes(content)
    told = call(capsys, "inspect", shard)
    assert told.code == 4
    assert told.err.startswith(f"error: a file of the artifact is damaged | at: {shard} | got: ")


def test_a_damaged_shard_is_told(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"not a tar" * 100)
    told = call(capsys, "inspect", tmp_path / "x.tar")
    assert told.code == 3
    assert told.err.startswith("error: the shard cannot be read")


@pytest.mark.parametrize(("name", "got"), [("none", "nothing"), ("empty", "a folder or file")])
def test_anything_else_is_told(capsys: Capture, tmp_path: Path, name: str, got: str) -> None:
    (tmp_path / "empty").mkdir()
    told = call(capsys, "inspect", tmp_path / name)
    assert told.code == 4
    assert f"got: {got}" in told.err
