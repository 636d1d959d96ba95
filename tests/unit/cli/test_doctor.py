from __future__ import annotations

import fcntl
import shutil
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.unit.cli.run_cli import call

Capture = pytest.CaptureFixture[str]
CHECKS = ["python", "packages", "devices", "bf16", "collectives"]
FOLDER_CHECKS = ["shared", "rename", "lock", "disk", "tensorboard"]


def test_this_machine_is_fit(capsys: Capture, tmp_path: Path) -> None:
    told = call(capsys, "doctor", tmp_path)
    assert told.code == 0, told.out
    assert [line.split()[:2] for line in told.out.splitlines()] == [
        ["ok", c] for c in CHECKS + FOLDER_CHECKS
    ]
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_fails_what_needs_it(capsys: Capture, tmp_path: Path) -> None:
    told = call(capsys, "doctor", tmp_path / "none")
    failed = [line.split()[1] for line in told.out.splitlines() if line.startswith("FAIL")]
    assert failed == FOLDER_CHECKS
    assert "do: make it, or mend its permissions" in told.out
    assert told.code == 1
    assert told.err == "error: 5 of 10 checks failed | do: see FAIL above\n"


def test_other_failures_tell_what_to_do(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = ["click>=900", "not-there>=1"]
    monkeypatch.setattr(metadata, "requires", lambda _: needs)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**29))
    monkeypatch.setattr(fcntl, "flock", lambda *_: None)
    told = call(capsys, "doctor", tmp_path)
    lines = {line.split()[1]: line for line in told.out.splitlines() if line.startswith("FAIL")}
    assert "is not >=900; not-there is missing | do: pip install" in lines["packages"]
    assert "got: 0.5 GiB | expected: >= 2 GiB" in lines["disk"]
    assert "flock lets two owners in" in lines["lock"]
    assert len(lines) == 3
