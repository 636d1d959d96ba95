from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.run_cli import call


def test_a_dry_run_calls_nothing_and_tells_what_is_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "embedding").mkdir()
    (tmp_path / "embedding/COMPLETE").touch()
    (tmp_path / ".training.partial").mkdir()
    told = call(capsys, "run", "--dry-run", f"run={tmp_path}", "shards.path=https://host/shards")
    assert [line.split()[0] for line in told.out.splitlines()] == [
        "shards",
        "embedding",
        "training",
        "sampling",
        "evaluation",
    ]
    expected = ["remote; would be read", "complete; skipped", "begun", "would be made", "would be"]
    for line, state in zip(told.out.splitlines(), expected, strict=True):
        assert state in line
