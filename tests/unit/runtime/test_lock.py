"""One writer per folder, and the loser gets one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from sno_dist.errors import RunError
from sno_dist.runtime.artifact import is_complete
from sno_dist.runtime.lock import locked
from sno_dist.runtime.writing import writing


def test_the_lock_is_free_again_when_its_block_ends(tmp_path: Path) -> None:
    for _ in range(2):
        with (
            locked(tmp_path),
            pytest.raises(RunError, match="cannot be taken.*in use.*do: wait"),
        ):
            locked(tmp_path).__enter__()
    with locked(tmp_path / "one"), locked(tmp_path / "two"):
        pass


def test_nobody_is_waited_for_where_a_folder_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = r"cannot be taken .*got: Not a directory \| do: name another folder"
    with pytest.raises(RunError, match=told):
        locked(tmp_path / "file/run").__enter__()


def test_an_artifact_has_one_writer(tmp_path: Path) -> None:
    with writing(tmp_path / "a", "thing", {}) as folder:
        (folder / "x").write_text("1")
        second = writing(tmp_path / "a", "thing", {})
        with pytest.raises(RunError, match=r"cannot be taken.*in use by process \d+ on "):
            second.__enter__()
        with writing(tmp_path / "b", "thing", {}) as other:
            (other / "y").write_text("2")
        assert (folder / "x").read_text() == "1"
    assert is_complete(tmp_path / "a")
    assert is_complete(tmp_path / "b")
