from __future__ import annotations

import subprocess
import sys

import click
import pytest

from sno_dist.cli.main import commands, guarded
from sno_dist.errors import Preempted, RunError, SnoError
from tests.unit.cli.run_cli import call

HEAVY = {"torch", "numpy", "accelerate", "transformers", "deepspeed", "webdataset"}


def walk(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The words of every command and group."""
    children = command.commands.items() if isinstance(command, click.Group) else ()
    return [path, *(words for name, child in children for words in walk(child, (*path, name)))]


def test_help_of_every_command_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom sno_dist.cli.main import main\n"
        f"for words in {walk(commands)!r}:\n"
        "    try: main([*words, '--help'])\n"
        "    except SystemExit as end: assert end.code == 0, words\n"
        f"assert not {HEAVY!r} & set(sys.modules), {HEAVY!r} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_stages_read_neither_engine_nor_judge_before_they_need_one() -> None:
    # they would be most of what every rank reads as it starts
    code = (
        "import sys, sno_dist.training.train, sno_dist.sampling.sample\n"
        "import sno_dist.evaluation.evaluate\n"
        "found = {'transformers', 'deepspeed', 'torch.distributed.fsdp'} & set(sys.modules)\n"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_commands_are_listed_in_the_order_of_the_data_flow(
    capsys: pytest.CaptureFixture[str],
) -> None:
    told = call(capsys, "--help")
    names = [line.split()[0] for line in told.out.partition("Commands:")[2].strip().splitlines()]
    assert names == [
        "run",
        "build-shards",
        "fit-embedding",
        "train",
        "sample",
        "evaluate",
        "config",
        "plan",
        "inspect",
        "doctor",
    ]
    assert call(capsys).out == told.out


@pytest.mark.parametrize("stage", ["run", "build-shards", "train"])
def test_a_stage_shows_lines_to_copy(capsys: pytest.CaptureFixture[str], stage: str) -> None:
    assert f"\n    sno-dist {stage} -c configs/digits.yaml\n" in call(capsys, stage, "--help").out


def test_an_unknown_key_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    told = call(capsys, "train", "training.stepz=3")
    assert told.code == 2
    assert told.out == ""
    assert told.err.startswith("error: unknown key | at: training.stepz | ")
    assert told.err.endswith("do: did you mean steps?\n")
    assert told.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("trian",), "error: No such command 'trian'"),
        (("train", "--bogus"), "error: No such option"),
        (("inspect",), "error: Missing argument 'PATH'. | do: sno-dist inspect --help"),
        (("config", "diff"), "error: Missing argument 'FILE'"),
    ],
)
def test_a_wrong_use_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    told = call(capsys, *words)
    assert told.code == 2
    assert told.err.startswith(message)
    assert told.err.count("\n") == 1


def test_among_several_ranks_an_error_names_its_rank(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "3")
    assert call(capsys, "config", "show", "x").err.startswith("[rank 3] error: an override is not")


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (SnoError("a\nb", fix="c"), 1, "error: a b | do: c\n"),
        (RunError("lost"), 5, "error: lost\n"),
        (Preempted("saved"), 75, "error: saved\n"),
        (KeyboardInterrupt(), 130, "error: interrupted; the same command resumes\n"),
    ],
)
def test_every_known_end_has_its_code_and_one_line(
    capsys: pytest.CaptureFixture[str], error: BaseException, code: int, line: str
) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        guarded(fail)
    assert caught.value.code == code
    assert capsys.readouterr().err == line


def test_a_bug_keeps_its_traceback() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        guarded(fail)


def test_output_that_nobody_reads_ends_quietly_as_by_a_signal() -> None:
    command = f"{sys.executable} -m sno_dist config schema | true"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (141, "", "")
