from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.cli.run_cli import call


def test_a_dry_run_calls_nothing_and_tells_what_is_there(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "embedding").mkdir()
    (tmp_path / "embedding/COMPLETE").touch()
    # what a run of fewer steps or a failure left is not the training that is asked for
    for name in ("step-00000100", "failed-step-00000007"):
        (tmp_path / "training" / name).mkdir(parents=True)
        (tmp_path / "training" / name / "COMPLETE").touch()
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
