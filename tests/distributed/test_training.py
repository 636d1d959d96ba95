"""Two ranks train: they stay equal, and a run that is stopped or killed ends with the same bits."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from sno_dist.runtime.artifact import open_artifact
from tests.distributed.forked import Ended, Running, start_ranks, wait_for
from tests.distributed.launch import launch
from tests.pipeline.small import contents, small_run

# the first test waits for the whole life of a run
pytestmark = pytest.mark.timeout(400)

PROGRAM = Path(__file__).with_name("training_program.py")
STEPS = 80
OVERRIDES = (
    f"training.steps={STEPS}",
    # uneven shares: four distributions on one rank, three on the other
    "training.distributions=7",
    "training.save_every=7",
    "training.log_every=1",
    "training.workers=1",
)
BOUND = 20.0
"""Seconds in which all ranks must have ended after one is lost or asked to stop."""
SAVED = re.compile(r"\[rank (\d)\] error: asked to stop \| got: step (\d+) saved \| do: run the")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """One attempt that was ended from outside: at which step, and how its ranks ended."""

    step: int
    ranks: list[Ended]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lives:
    """An undisturbed run in `whole`, and in `life` the same run, disturbed four times.

    Args:
        root: Holds both.
        terminated: What `accelerate launch` told when rank 0 got TERM, and the step then.
        stopped: When rank 1 got USR2.
        killed: When rank 1, and then rank 0, got KILL.
        last: The attempt that nobody disturbed.
    """

    root: Path
    terminated: tuple[int, str]
    stopped: Stop
    killed: list[Stop]
    last: list[Ended]


def words(root: Path, name: str) -> list[str]:
    return small_run(root / "shards", root / name, root / "judge", *OVERRIDES)


def steps_told(run: Path) -> list[int]:
    """The steps in a run's log, in the order of writing; the last line may be half written."""
    log = run / "logs/rank-00000.jsonl"
    lines = log.read_text().split("\n")[:-1] if log.is_file() else []
    return [json.loads(line)["step"] for line in lines]


def after_steps(run: Path, count: int) -> Callable[[], bool]:
    """Whether `count` more steps were logged than now."""
    before = len(steps_told(run))
    return lambda: len(steps_told(run)) >= before + count


def terminate_first_rank(root: Path) -> tuple[int, str]:
    """Launch, and send TERM to rank 0 alone, whose process the run's lock names."""
    run = root / "life"
    told, steps = after_steps(run, 4), []

    def send() -> None:
        wait_for(told, 80)
        pid = re.search(r"process (\d+)", (run / ".lock").read_text())
        assert pid is not None
        steps.append(steps_told(run)[-1])
        os.kill(int(pid[1]), signal.SIGTERM)

    sender = threading.Thread(target=send)
    sender.start()
    done = launch(2, "sno_dist", "train", *words(root, "life"))
    sender.join()
    return steps[0], done.stderr


def end_all(ranks: list[Running], timeout: float) -> list[Ended]:
    try:
        return [rank.end(timeout) for rank in ranks]
    finally:
        for rank in ranks:
            rank.process.kill()


def disturb(root: Path, rank: int, number: signal.Signals, delay: float) -> Stop:
    """Start the ranks without an agent; send one of them a signal, some time after its 4th step."""
    run = root / "life"
    told = after_steps(run, 4)
    ranks = start_ranks(2, root / "streams", "train", *words(root, "life"))
    try:
        wait_for(told)
        time.sleep(delay)
        os.kill(ranks[rank].pid, number)
    finally:
        ended = end_all(ranks, BOUND)
    return Stop(step=steps_told(run)[-1], ranks=ended)


@pytest.fixture(scope="module")
def lives(tmp_path_factory: pytest.TempPathFactory) -> Lives:
    root = tmp_path_factory.mktemp("lives")
    done = launch(2, PROGRAM, root, *words(root, "whole"))
    assert done.returncode == 0, done.stderr
    shutil.copytree(root / "whole/embedding", root / "life/embedding")
    source = random.Random(0)
    return Lives(
        root=root,
        terminated=terminate_first_rank(root),
        stopped=disturb(root, 1, signal.SIGUSR2, 0),
        killed=[disturb(root, rank, signal.SIGKILL, source.uniform(0, 0.6)) for rank in (1, 0)],
        last=end_all(start_ranks(2, root / "streams", "train", *words(root, "life")), 90),
    )


def test_after_every_step_all_ranks_hold_the_same_bits(lives: Lives) -> None:
    facts = [json.loads((lives.root / f"{rank}.json").read_text()) for rank in range(2)]
    shares = [fact["drawn"] for fact in facts]
    assert sorted(slot for share in shares for slot in share) == list(range(7))
    assert sorted(map(len, shares)) == [3, 4]
    assert facts[0]["held"] == facts[1]["held"]
    assert len(set(facts[0]["held"])) == 5
    assert all(fact["agreed"] for fact in facts)


def test_a_bit_that_one_rank_holds_alone_is_noticed_by_all(lives: Lives) -> None:
    facts = [json.loads((lives.root / f"{rank}.json").read_text()) for rank in range(2)]
    assert not any(fact["agreed when one differs"] for fact in facts)


def test_term_to_one_rank_stops_all_of_a_launch_at_one_saved_step(lives: Lives) -> None:
    sent, err = lives.terminated
    saved = dict(SAVED.findall(err))
    assert saved.keys() == {"0", "1"}, err
    assert len(set(saved.values())) == 1
    assert sent < int(saved["0"]) < STEPS
    # what a scheduler's requeue rule looks for, as the agent reports it
    assert re.search(r"exitcode +: 75\b", err), err


def test_usr2_to_one_rank_stops_all_at_one_saved_step(lives: Lives) -> None:
    assert [rank.code for rank in lives.stopped.ranks] == [75, 75]
    told = [SAVED.findall("\n".join(rank.errors)) for rank in lives.stopped.ranks]
    assert told == [[("0", str(lives.stopped.step))], [("1", str(lives.stopped.step))]]
    assert lives.stopped.step < STEPS


@pytest.mark.parametrize(("attempt", "lost"), [(0, 1), (1, 0)])
def test_a_killed_rank_ends_the_other_soon_with_one_line(
    lives: Lives, attempt: int, lost: int
) -> None:
    ranks = lives.killed[attempt].ranks
    assert ranks[lost].code == -signal.SIGKILL
    other = ranks[1 - lost]
    assert other.code == 5, other.err
    assert len(other.errors) == 1, other.err
    assert other.errors[0].startswith(
        f"[rank {1 - lost}] error: rank {1 - lost} lost contact with another rank during "
    )
    assert other.errors[0].endswith("then run the same command to resume")


def test_the_same_command_goes_on_from_what_was_saved(lives: Lives) -> None:
    assert [rank.code for rank in lives.last] == [0, 0], lives.last
    attempts = [lives.stopped.ranks, *(killed.ranks for killed in lives.killed), lives.last]
    told = [re.findall(r"training goes on from step (\d+)", own[0].err) for own in attempts]
    begins = [int(step) for (step,) in told]
    # a signal loses nothing; a kill what came after the last multiple of save_every, or after what
    # the signal before it saved
    assert begins[0] == int(dict(SAVED.findall(lives.terminated[1]))["0"])
    ended = [lives.stopped.step, *(killed.step for killed in lives.killed)]
    assert begins[1] == ended[0]
    for begun, before, end in zip(begins[2:], begins[1:], ended[1:], strict=False):
        # a step is told before it is saved: a kill between the two takes the save of the last one
        saves = {end - end % 7, (end - 1) // 7 * 7}
        assert begun in {max(before, saved) for saved in saves}, (begins, ended)
    assert steps_told(lives.root / "life") == list(range(1, STEPS + 1))


def test_the_end_is_the_same_bits_as_of_a_run_that_nobody_disturbed(lives: Lives) -> None:
    last = f"training/step-{STEPS:08d}"
    whole, life = (contents(lives.root / name / last) for name in ("whole", "life"))
    assert {"raw.safetensors", "model.safetensors", "optimizer.safetensors"} < whole.keys()
    assert life == whole


def test_what_lies_on_disk_is_whole_or_hidden(lives: Lives) -> None:
    training = lives.root / "life/training"
    kept = [path for path in training.iterdir() if path.is_dir() and path.name[0] != "."]
    assert sorted(p.name for p in kept) == ["step-00000077", f"step-{STEPS:08d}"]
    for path in kept:
        open_artifact(path, "checkpoint")
