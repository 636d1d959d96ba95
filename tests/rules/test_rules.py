"""Rules of the repository that no linter knows."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import click
import pytest
import yaml

from sno_dist.cli.main import commands
from sno_dist.config.load import load_config

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = sorted((ROOT / "sno_dist").rglob("*.py"))
BANNED = {"utils", "util", "common", "helpers", "helper", "misc", "tools", "manager"}
NUMERICS = re.compile(r"mixed_precision|accumulation|clipping|batch|learning_rate|lr\b|fp16|bf16")


def documents() -> list[Path]:
    named = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "Makefile")]
    return [path for path in (*named, *sorted((ROOT / "launch").rglob("*.*"))) if path.is_file()]


def invocations(text: str) -> list[list[str]]:
    """The words after `sno-dist` or `-m sno_dist` of each command line in a document."""
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    # Not `sno-dist,` in prose: a command is followed by a lower-case word.
    found = [re.search(r"(?:\bsno-dist|-m sno_dist) ([a-z][^`|;&>]*)", line) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


def test_the_wheel_holds_the_package_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"sno_dist"}
    held = {name for name in names if name.startswith("sno_dist/")}
    assert held >= {path.relative_to(ROOT).as_posix() for path in PACKAGE}
    templates = (ROOT / "sno_dist").rglob("*.j2")
    assert held >= {path.relative_to(ROOT).as_posix() for path in templates}


def test_no_module_has_a_name_that_says_nothing() -> None:
    words = {path: set(path.stem.split("_")) | set(path.parent.parts) for path in PACKAGE}
    assert [path for path, found in words.items() if found & BANNED] == []


def test_every_module_has_a_docstring() -> None:
    assert [p for p in PACKAGE if not p.read_text().startswith(('"""', 'r"""'))] == []


@pytest.mark.parametrize("path", documents(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_command_that_a_document_shows_parses(path: Path) -> None:
    for words in invocations(path.read_text()):
        command: click.Command = commands
        rest = words
        while isinstance(command, click.Group) and rest:
            command, rest = command.commands[rest[0]], rest[1:]
        rest = [word for word in rest if word not in ("--help", "-h")]
        with command.make_context(command.name, list(rest)) as context:
            config = context.params.get("path")
            if isinstance(config, str) and "overrides" in context.params:
                load_config(ROOT / config, context.params["overrides"])


def test_the_finder_of_commands_finds_them() -> None:
    text = "`sno-dist train \\\n  -c a.yaml x=1` and\n$ accelerate launch -m sno_dist run  # go\n"
    assert invocations(text) == [["train", "-c", "a.yaml", "x=1"], ["run"]]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "launch").rglob("*.yaml")), ids=lambda path: path.name
)
def test_a_launch_file_holds_no_numerics(path: Path) -> None:
    keys = str(list(yaml.safe_load(path.read_text())))
    assert not NUMERICS.search(keys), keys


def test_constraints_pin_every_package_and_no_gpu_build() -> None:
    lines = [li for li in (ROOT / "constraints.txt").read_text().splitlines() if li[:1] != "#"]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9a-z.]*", line) for line in lines), lines
    assert not [line for line in lines if line.lower().startswith(("nvidia", "triton", "cuda"))]


def test_ci_runs_the_readmes_test_command() -> None:
    assert "\nmake test\n" in (ROOT / ".ci/run").read_text()
    assert 'pytest -q -m "not gpu and not slurm"' in (ROOT / "Makefile").read_text()
