from __future__ import annotations

import json
from pathlib import Path

import pytest

from sno_dist.config.load import dump, load_config
from sno_dist.config.schema import Config
from tests.unit.cli.run_cli import call

Capture = pytest.CaptureFixture[str]


def test_show_prints_the_resolved_config(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("seed: 4")
    told = call(capsys, "config", "show", "-c", path, "training.steps=9")
    assert told.out == dump(load_config(path, ["training.steps=9"]))


def test_what_show_prints_can_be_given_back(capsys: Capture, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(call(capsys, "config", "show", "embedding.kind=kme").out)
    assert load_config(path) == load_config(None, ["embedding.kind=kme"])


def test_diff_goes_from_the_defaults_or_between_two_files(capsys: Capture, tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("seed: 4")
    two.write_text("training: {steps: 9}")
    assert call(capsys, "config", "diff", one).out == "seed: 0 -> 4\n"
    told = call(capsys, "config", "diff", one, two)
    assert told.out == "seed: 4 -> 0\ntraining.steps: 3000 -> 9\n"
    assert call(capsys, "config", "diff", one, one).out == ""


def test_schema_is_the_schema(capsys: Capture) -> None:
    assert json.loads(call(capsys, "config", "schema").out) == Config.model_json_schema()
