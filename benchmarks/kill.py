"""Ten kills at random moments of a run of two ranks, and whether its end is the same to the bit.

A run of all five stages under `accelerate launch` is left alone once. Then the same run, in other
folders, loses a rank or both to KILL ten times, over its whole life: while shards are built, while
it starts, in and between steps, while it saves, while it samples. Where that is over just before
the kill, the moment is waited for anew. After each kill the run is started again by the same
command; what lies on disk must be whole, or hidden from every reader.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import finish, machine
from sno_dist.errors import ArtifactError
from sno_dist.runtime.artifact import is_complete, open_artifact

ROOT = Path(__file__).resolve().parents[1]
RANKS = 2
BOUND = 20.0
"""Seconds after a kill in which everything that was launched must have ended."""
PATIENCE = 300.0
"""Seconds in which the moment of a kill, or the end of the run, must have come."""
MOMENTS = ("start", "step", "save")
HIDDEN = {"build": ".shards.partial", "sample": "run/.sampling.partial"}
"""Moment -> the folder that is there while what it is named after goes on."""
BEYOND = {"build": ("shards", "judge", "run"), "sample": ("run/sampling", "run/evaluation")}
"""Moment -> what is there once it has passed, and must not be for it to come anew."""
TRIES = 10
"""A kill whose moment was over so often is an error."""


class Late(Exception):
    """The moment of a kill was over before the kill."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """The folders of one run."""

    root: Path
    steps: int

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.root / "run"

    @property
    def training(self) -> Path:
        """Where its checkpoints lie."""
        return self.run / "training"

    def command(self) -> list[str]:
        """The command that starts the run, and that goes on with it."""
        launcher = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
        launcher += ["--config_file", str(ROOT / "launch/accelerate/one_machine.yaml")]
        launcher += ["--num_processes", str(RANKS), "-m", "sno_dist", "run"]
        return [
            *launcher,
            *("-c", str(ROOT / "configs/smoke.yaml")),
            f"shards.path={self.root}/shards",
            f"run={self.run}",
            f"judge.path={self.root}/judge",
            "shards.source.judge=4",
            f"training.steps={self.steps}",
            "training.save_every=3",
            "training.log_every=1",
            "training.workers=1",
        ]

    def lines(self) -> int:
        """Lines of the log: a step each."""
        log = self.run / "logs/rank-00000.jsonl"
        return log.read_text().count("\n") if log.is_file() else 0


class Attempt:
    """One launch of the run.

    Args:
        place: The run's folders.
    """

    def __init__(self, place: Place) -> None:
        self.began = time.monotonic()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._told = (place.root / "stderr").open("w+")
        self._agent = subprocess.Popen(
            place.command(),
            cwd=ROOT,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=self._told,
        )

    @property
    def over(self) -> bool:
        """Whether the launch has ended."""
        return self._agent.poll() is not None

    def ranks(self) -> dict[int, int]:
        """Rank -> process, of those that are there."""
        found = {}
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(self._agent.pid).children():
                with suppress(psutil.Error):
                    if (rank := child.environ().get("RANK")) is not None:
                        found[int(rank)] = child.pid
        return found

    def end(self, timeout: float) -> int:
        """Wait for the launch, or end it; its exit status."""
        try:
            return self._agent.wait(timeout)
        except subprocess.TimeoutExpired:
            self.stop()
            raise

    def stop(self) -> None:
        """End the launch."""
        # TERM, not KILL: the agent passes it on to its ranks
        self._agent.terminate()
        self._agent.wait(60)

    def errors(self) -> list[str]:
        """The lines in which ranks told why they ended; closes what they were written to."""
        self._told.seek(0)
        lines = self._told.read().splitlines()
        self._told.close()
        return [line for line in lines if line.startswith("[rank ") and "error: " in line]


@contextmanager
def attempt(place: Place) -> Iterator[Attempt]:
    """A launch that has ended when the block is left."""
    launched = Attempt(place)
    try:
        yield launched
    finally:
        if not launched.over:
            launched.stop()


def wait_until(condition: Callable[[], bool], launched: Attempt) -> None:
    """Look every millisecond until a condition holds.

    Raises:
        RuntimeError: If the launch ends before, or it takes too long.
    """
    end = time.monotonic() + PATIENCE
    while not condition():
        if launched.over or time.monotonic() > end:
            raise RuntimeError(f"the moment did not come: {launched.errors()}")
        time.sleep(0.001)


def moment(kind: str, place: Place, launched: Attempt, source: random.Random) -> None:
    """Return at a random moment of one kind."""
    if kind == "start":
        time.sleep(source.uniform(0, 10))
        wait_until(lambda: len(launched.ranks()) == RANKS, launched)
    elif kind == "step":
        wanted = place.lines() + source.randint(2, 12)
        wait_until(lambda: place.lines() >= wanted, launched)
        time.sleep(source.uniform(0, 0.2))
    elif kind == "save":
        wanted = place.lines() + source.randint(1, 9)
        wait_until(lambda: place.lines() >= wanted, launched)
        wait_until(lambda: any(place.training.glob(".step-*.partial")), launched)
        time.sleep(source.uniform(0, 0.02))
    else:
        wait_until((place.root / HIDDEN[kind]).is_dir, launched)
        time.sleep(source.uniform(0, 0.8 if kind == "sample" else 0.4))


def is_at(kind: str, place: Place, logged: int) -> bool:
    """Whether a run, which had logged so much when it was launched, is at a kind of moment."""
    if kind == "start":
        return place.lines() == logged
    if kind == "step":
        return place.lines() < place.steps
    if kind == "save":
        return any(place.training.glob(".step-*.partial"))
    return (place.root / HIDDEN[kind]).is_dir()


def kill(kind: str, place: Place, source: random.Random) -> dict[str, Any]:
    """The first attempt that is killed at its moment; what was seen of it.

    Raises:
        RuntimeError: If the moment was over too often.
    """
    for late in range(TRIES):
        try:
            return {**kill_once(kind, place, source), "late": late}
        except Late:
            for name in BEYOND.get(kind, ()):
                shutil.rmtree(place.root / name, ignore_errors=True)
    raise RuntimeError(f"the moment was over {TRIES} times: {kind}")


def kill_once(kind: str, place: Place, source: random.Random) -> dict[str, Any]:
    """One attempt that is killed; what was seen of it.

    Raises:
        Late: If the moment, or a rank, was gone before.
    """
    logged = place.lines()
    with attempt(place) as launched:
        moment(kind, place, launched, source)
        victims = source.choice([(0,), (1,), (0, 1)])
        ranks = launched.ranks()
        if len(ranks) < RANKS or not is_at(kind, place, logged):
            raise Late
        for rank in victims:
            os.kill(ranks[rank], signal.SIGKILL)
        killed = time.monotonic()
        hidden = sorted(path.name for path in place.root.rglob(".*.partial"))
        launched.end(2 * BOUND)
        errors = launched.errors()
    return {
        "moment": kind,
        "victims": list(victims),
        "second": round(killed - launched.began, 2),
        "logged": place.lines(),
        "being_written": hidden,
        "ended_after": round(time.monotonic() - killed, 2),
        "errors": errors,
        **look(place.root),
    }


def look(root: Path) -> dict[str, Any]:
    """Which artifacts are whole, which claim to be and are not, and what no reader looks at."""
    whole, damaged = 0, []
    for path in sorted(path.parent for path in root.rglob("COMPLETE")):
        if any(part.startswith(".") for part in path.relative_to(root).parts):
            continue
        try:
            open_artifact(path, json.loads((path / "COMPLETE").read_text())["kind"])
            whole += 1
        except (ArtifactError, ValueError) as error:
            damaged.append(f"{path.relative_to(root)}: {error}")
    pointer = root / "run/training/LATEST"
    if pointer.is_file() and not is_complete(pointer.parent / pointer.read_text().strip()):
        damaged.append("training/LATEST names a checkpoint that is not whole")
    hidden = [path for path in root.rglob(".*") if path.is_dir()]
    return {"whole": whole, "damaged": damaged, "hidden": len(hidden)}


def differences(one: Path, other: Path, steps: int) -> list[str]:
    """Files of the last checkpoint, the judge and the samples that differ in any bit."""
    found = []
    for folder in (f"run/training/step-{steps:08d}", "judge", "shards", "run/sampling"):
        names = {
            path.relative_to(root / folder)
            for root in (one, other)
            for path in (root / folder).rglob("*")
            if path.is_file()
        }
        # the samples' index holds the seconds that they took
        names = {n for n in names if folder != "run/sampling" or n.suffix in (".tar", "")}
        names -= {Path("COMPLETE")} if folder == "run/sampling" else set()
        for name in sorted(names):
            mine, theirs = one / folder / name, other / folder / name
            same = mine.is_file() and theirs.is_file() and mine.read_bytes() == theirs.read_bytes()
            found += [] if same else [f"{folder}/{name}"]
    figures = [json.loads((r / "run/evaluation/summary.json").read_text()) for r in (one, other)]
    for summary in figures:
        del summary["seconds"]
    return found + ([] if figures[0] == figures[1] else ["run/evaluation/summary.json"])


def clear(seen: dict[str, Any]) -> bool:
    """Whether each survivor told in one line that it lost the other, and all ended soon.

    One that was still starting has nothing to lose yet, and ends by the agent's TERM.
    """
    survivors = RANKS - len(seen["victims"])
    least = 0 if seen["moment"] == "start" else survivors
    told = [line for line in seen["errors"] if "lost contact with another rank" in line]
    return least <= len(told) == len(seen["errors"]) <= survivors and seen["ended_after"] <= BOUND


def finished(place: Place) -> float:
    """Run to the end, undisturbed; the seconds it took.

    Raises:
        RuntimeError: If it ends in an error.
    """
    place.root.mkdir(exist_ok=True)
    with attempt(place) as launched:
        if launched.end(PATIENCE):
            raise RuntimeError(f"the run failed: {launched.errors()}")
        launched.errors()
    return time.monotonic() - launched.began


def moments(kills: int, source: random.Random) -> list[str]:
    """What the run is at, at each kill: building first, sampling last, between in any order."""
    between = [MOMENTS[index % len(MOMENTS)] for index in range(max(0, kills - 2))]
    source.shuffle(between)
    return ["build", *between, "sample"][:kills]


def main() -> None:
    """Kill, compare, print the figures, and say whether the goal is met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--steps", type=int, default=120, help="of training")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the victims")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    source = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole = Place(root=Path(folder) / "whole", steps=options.steps)
        killed = Place(root=Path(folder) / "killed", steps=options.steps)
        seconds = finished(whole)
        killed.root.mkdir()
        seen = []
        for kind in moments(options.kills, source):
            seen.append(kill(kind, killed, source))
            print(json.dumps(seen[-1]), file=sys.stderr, flush=True)
        finished(killed)
        differ = differences(whole.root, killed.root, options.steps)
        end = look(killed.root)
    damaged = [name for one in (*seen, end) for name in one["damaged"]]
    unclear = [one for one in seen if not clear(one)]
    result: dict[str, Any] = {
        "benchmark": "kill",
        "machine": machine(),
        "ranks": RANKS,
        "steps": options.steps,
        "undisturbed_seconds": round(seconds, 1),
        "kills": seen,
        "late": sum(one["late"] for one in seen),
        "longest_end": max((one["ended_after"] for one in seen), default=0),
        "different": differ,
        "damaged": damaged,
        "unclear": len(unclear),
        "goal": f"no file differs, none is damaged, survivors tell one line, all ends in {BOUND} s",
        "met": not differ and not damaged and not unclear,
    }
    finish(result, options.out)


if __name__ == "__main__":
    main()
