from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.unit.cli.run_cli import call

Calls = list[tuple[str, tuple[Any, ...]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Stands in for the stages: records who was called with which upstream artifacts."""
    made: Calls = []

    def put(module: str, name: str) -> None:
        def function(config: Any, *upstream: Any) -> Any:
            assert config.seed == 5
            made.append((name, upstream))
            return SimpleNamespace(table="the table", path="runs/x") if name == "evaluate" else name

        stand_in = ModuleType(f"sno_dist.{module}")
        setattr(stand_in, name, function)
        monkeypatch.setitem(sys.modules, f"sno_dist.{module}", stand_in)

    start = ModuleType("sno_dist.runtime.accelerator")
    start.start = lambda: made.append(("start", ()))  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, start.__name__, start)
    put("shards.build", "build_shards")
    put("shards.manifest", "open_manifest")
    put("embedding.fit", "fit_embedding")
    put("embedding.table", "open_table")
    put("training.train", "train")
    put("training.checkpoint", "open_checkpoint")
    put("sampling.sample", "sample")
    put("sampling.sample_set", "open_samples")
    put("evaluation.evaluate", "evaluate")
    return made


def test_run_hands_each_artifact_on_and_shows_the_table(
    capsys: pytest.CaptureFixture[str], calls: Calls
) -> None:
    told = call(capsys, "run", "seed=5")
    assert calls == [
        ("start", ()),
        ("build_shards", ()),
        ("fit_embedding", ("build_shards",)),
        ("train", ("build_shards", "fit_embedding")),
        ("sample", ("build_shards", "train")),
        ("evaluate", ("build_shards", "sample")),
    ]
    assert told.out == "the table\nreport: runs/x\n"


@pytest.mark.parametrize(
    ("command", "opened", "called"),
    [
        ("build-shards", (), "build_shards"),
        ("fit-embedding", ("open_manifest",), "fit_embedding"),
        ("train", ("open_manifest", "open_table"), "train"),
        ("sample", ("open_manifest", "open_checkpoint"), "sample"),
        ("evaluate", ("open_manifest", "open_samples"), "evaluate"),
    ],
)
def test_a_single_stage_opens_what_is_upstream(
    capsys: pytest.CaptureFixture[str], calls: Calls, command: str, opened: tuple[str], called: str
) -> None:
    assert call(capsys, command, "seed=5").code == 0
    assert calls == [("start", ()), *((name, ()) for name in opened), (called, opened)]


def test_a_dry_run_calls_nothing_and_tells_what_is_there(
    capsys: pytest.CaptureFixture[str], calls: Calls, tmp_path: Path
) -> None:
    (tmp_path / "embedding").mkdir()
    (tmp_path / "embedding/COMPLETE").touch()
    (tmp_path / ".training.partial").mkdir()
    told = call(capsys, "run", "--dry-run", f"run={tmp_path}", "shards.path=https://host/shards")
    assert calls == []
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
