"""Two ranks over one, a thread each, in training and in sampling; and what crosses the wire.

Three jobs live side by side: one process alone; two ranks under `accelerate launch`, in a network
of their own where that is permitted; and two processes apart, each with half of the work and no
word between them, which tell what the machine gives to two. All train global batches by `train`
itself, then draw samples by `sample` itself, and take turns: while one works the others sleep, so
that what else the machine does hits all. A ratio is the median over neighbouring turns.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
import torch

from benchmarks import finish, machine
from benchmarks.bar import Bar
from sno_dist.cli.unbuilt import operator_of, population_of
from sno_dist.config.load import load_config
from sno_dist.config.schema import Config
from sno_dist.embedding.fit import fit_embedding
from sno_dist.runtime import collectives
from sno_dist.runtime.accelerator import start
from sno_dist.runtime.artifact import write_json
from sno_dist.runtime.precision import settled
from sno_dist.sampling.sample import sample
from sno_dist.shards.build import build_shards
from sno_dist.training import train as training
from sno_dist.training.footprint import size_of, traffic_of

ROOT = Path(__file__).resolve().parents[1]
RANKS = 2
JOBS = {"alone": ("alone",), "together": ("together",), "apart": ("apart-0", "apart-1")}
"""Name -> its launches, which work at the same time."""
GOALS = {"ratio": 1.8, "wire": 0.05}
LOOK = 0.02
"""Seconds between two looks for a turn: a sleeper takes no share of a core."""
WARM = {"training": 5, "sampling": 1}
"""Turns of a stage that do not count: every new size of a context set is a primitive to compile."""
PATIENCE = 1800.0
"""Seconds after which a turn that has not ended is an error."""
WAYS = (["unshare", "--net"], ["unshare", "--net", "--map-root-user"])
UP = 'ip link set lo up && exec "$@"'


# ------------------------------------------------------------------------------- a job


class Turns(Bar):
    """A job's turns, told by files; during training by its steps.

    Args:
        folder: Where the files lie.
        job: Its name.
        length: Training steps of a turn.
    """

    def __init__(self, folder: Path, job: str, length: int) -> None:
        self._folder, self._job, self._length = folder, job, length
        self._number, self._done = 0, 0
        self._start, self._carried = 0.0, 0

    def begin(self) -> None:
        """Sleep until it is this job's turn."""
        _wait(self._folder / f"{self._job}-{self._number}.go")
        self._start, self._carried = time.perf_counter(), _carried()

    def end(self) -> None:
        """Tell how long the turn was, and what the loopback interface carried."""
        found = {"seconds": time.perf_counter() - self._start}
        found["carried"] = _carried() - self._carried
        if collectives.world().is_main:
            write_json(self._folder / f"{self._job}-{self._number}.done", found)
        self._number += 1

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count a step; after the last of a turn, sleep until the next."""
        del note
        self._done += count
        if self._done % self._length:
            return
        self.end()
        self.begin()


def work(folder: Path, job: str, options: argparse.Namespace) -> None:
    """What each rank of a job does."""
    torch.set_num_threads(1)
    start()
    overrides: list[str] = options.overrides
    config = load_config(options.config, [*overrides, f"run={folder}/{job}/run"])
    manifest = build_shards(config)
    turns = Turns(folder, job, options.length)
    with patch.object(training, "Progress", turns):
        checkpoint = training.train(config, manifest, fit_embedding(config, manifest))
    # the turn that was begun after the last step ends with what only training's end does
    turns.end()
    for number in range(options.rounds + WARM["sampling"]):
        own = load_config(options.config, [*overrides, f"run={folder}/{job}/samples-{number}"])
        turns.begin()
        sample(own, manifest, checkpoint)
        turns.end()


def _wait(path: Path, failed: Callable[[], bool] = lambda: False) -> None:
    limit = time.monotonic() + PATIENCE
    while not path.exists():
        if failed() or time.monotonic() > limit:
            # the folder of the logs goes with this process
            ends = [f"{log.name}: {log.read_text()[-500:]}" for log in path.parent.glob("*.log")]
            raise SystemExit("\n".join([f"{path.name} has not come", *ends]))
        time.sleep(LOOK)


def _carried() -> int:
    """Bytes that the loopback interface of this network has carried."""
    return psutil.net_io_counters(pernic=True, nowrap=False)["lo"].bytes_recv


# ----------------------------------------------------------------------------- all jobs


def isolation() -> list[str]:
    """What to put before a command so that its network is its own; empty if not permitted."""
    for way in WAYS:
        inside = [*way, "sh", "-c", UP, "sh"]
        try:
            if not subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
                return inside
        except FileNotFoundError:
            return []
    return []


@contextmanager
def jobs(folder: Path, options: argparse.Namespace, inside: list[str]) -> Iterator[list[Any]]:
    """All jobs, ended with the block."""
    launcher = ["-m", "accelerate.commands.accelerate_cli", "launch", "--config_file"]
    launcher += ["launch/accelerate/one_machine.yaml", "--num_processes", str(RANKS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    running = []
    for job in chain.from_iterable(JOBS.values()):
        command = [*inside, sys.executable, *launcher] if job == "together" else [sys.executable]
        halved = options.halves if job in JOBS["apart"] else []
        words = ["-m", "benchmarks.scaling", *options.overrides, *halved]
        words += ["--job", job, "--folder", str(folder)]
        words += ["--rounds", str(options.rounds), "--length", str(options.length)]
        words += ["--config", str(options.config)] if options.config else []
        with (folder / f"{job}.log").open("w") as log:
            process = subprocess.Popen(
                [*command, *words], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        running.append(process)
    try:
        yield running
    finally:
        for process in running:
            # TERM, not KILL: the launcher passes it on to its ranks
            process.terminate()
            process.wait(60)


def take_turns(folder: Path, running: list[Any], count: int) -> list[dict[str, Any]]:
    """Let the jobs take so many turns each; who begins alternates."""

    def failed() -> bool:
        return any(process.poll() for process in running)

    found = []
    for number in range(count):
        turn: dict[str, Any] = {}
        for job in JOBS if number % 2 == 0 else reversed(JOBS):
            for launch in JOBS[job]:
                (folder / f"{launch}-{number}.go").touch()
            told = []
            for launch in JOBS[job]:
                done = folder / f"{launch}-{number}.done"
                _wait(done, failed)
                told.append(json.loads(done.read_text()))
            turn[job] = max(told, key=lambda found: found["seconds"])
        found.append(turn)
        print({job: round(turn[job]["seconds"], 2) for job in JOBS}, file=sys.stderr)
    return found


def speed(turns: list[dict[str, Any]], samples: int) -> dict[str, Any]:
    """The figures of one stage."""
    seconds = {job: [turn[job]["seconds"] for turn in turns] for job in JOBS}
    ratios, apart = (
        [a / b for a, b in zip(seconds["alone"], seconds[job], strict=True)]
        for job in ("together", "apart")
    )
    return {
        "samples_per_second": {
            job: round(samples / statistics.median(own), 1) for job, own in seconds.items()
        },
        "ratio": round(statistics.median(ratios), 3),
        "ratio_of_totals": round(sum(seconds["alone"]) / sum(seconds["together"]), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "ratio_apart": round(statistics.median(apart), 3),
        "met": statistics.median(ratios) >= GOALS["ratio"],
    }


def wire(turns: list[dict[str, Any]], config: Config, steps: int, ours: bool) -> dict[str, Any]:
    """Bytes that a rank sends in a step, beside what `plan` says."""
    manifest, _ = population_of(config)
    size = size_of(operator_of(config, manifest)[0])
    planned = traffic_of(size, "data_parallel", RANKS, backend="gloo").total
    if not ours:
        return {"planned": planned, "sent": None, "why": "no network of its own is permitted here"}
    sent = statistics.median(turn["together"]["carried"] for turn in turns) / steps / RANKS
    error = sent / planned - 1
    return {
        "planned": round(planned),
        "sent": round(sent),
        "error": round(error, 4),
        "met": abs(error) <= GOALS["wire"],
    }


def settings(folder: Path, options: argparse.Namespace) -> list[str]:
    """The run of the jobs: a config's operator, and samples that cut into even units."""
    # nothing is saved or shown before the last step
    steps = (options.rounds + WARM["training"]) * options.length
    return [
        f"shards.path={folder}/shards",
        "shards.source.model=300",
        "shards.source.judge=1",
        "shards.source.reference=2",
        "judge=null",
        "training.probe.every=0",
        f"training.steps={steps}",
        f"training.save_every={steps}",
        f"training.picture_every={steps}",
        "training.workers=0",
        "sampling.guidance=1.0",
        "sampling.contexts=[10]",
        "sampling.distributions=16",
        "sampling.samples=100",
        "sampling.batch=400",
        *options.overrides,
    ]


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All turns of all jobs."""
    options.overrides = settings(folder, options)
    config = load_config(options.config, [*options.overrides, f"run={folder}/run"])
    halves = {
        "training.distributions": config.training.distributions,
        "sampling.distributions": config.sampling.distributions or 0,
    }
    options.halves = [f"{key}={whole // RANKS}" for key, whole in halves.items()]
    build_shards(config)
    inside = isolation()
    steps, draws = (options.rounds + warm for warm in WARM.values())
    with jobs(folder, options, inside) as running:
        # between the stages a turn for the end of training: its checkpoint and pictures
        turns = take_turns(folder, running, steps + 1 + draws)
    trained, sampled = turns[WARM["training"] : steps], turns[-options.rounds :]
    batch = config.training.distributions * config.training.targets
    # whole sets of seen and unseen distributions, and those of ten samples
    drawn = 3 * (config.sampling.distributions or 0) * config.sampling.samples
    return {
        "benchmark": "scaling",
        "machine": machine(),
        "config": str(options.config) if options.config else None,
        "precision": settled(config.training.precision, torch.device("cpu")),
        "ranks": RANKS,
        "threads_per_rank": 1,
        "shape": {"P": config.training.distributions, "B": config.training.targets},
        "training": speed(trained, batch * options.length),
        "sampling": speed(sampled, drawn),
        "wire": wire(trained, config, options.length, bool(inside)),
        "goals": GOALS,
    }


def main() -> None:
    """Measure, print the figures, and say whether the goals are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", type=Path, help="whose operator; none: the default's")
    parser.add_argument("--rounds", type=int, default=8, help="pairs of turns of each stage")
    parser.add_argument("--length", type=int, default=20, help="training steps of a turn")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("overrides", nargs="*", help="section.key=value")
    options = parser.parse_args()
    if options.job:
        work(options.folder, options.job, options)
        return
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        finish(measure(Path(folder), options), options.out)


if __name__ == "__main__":
    main()
