"""Commands as processes of their own, forked from one that has imported what they need.

A plain start costs eight seconds of imports, a fork none. Everything else is as in life: a
process per command or rank, its own exit status, streams, signals and gloo connections.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from multiprocessing.context import ForkServerProcess
from pathlib import Path

__all__ = ["Ended", "Running", "free_port", "start", "start_ranks", "wait_for"]

ROOT = Path(__file__).resolve().parents[2]
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        "pytest",
        "sno_dist.cli.main",
        "sno_dist.shards.build",
        "sno_dist.embedding.fit",
        "sno_dist.training.train",
        "sno_dist.sampling.sample",
        "sno_dist.evaluation.evaluate",
        "sklearn.datasets",
        "torch.utils.tensorboard.writer",
    ]
)
DEFAULT = multiprocessing.get_all_start_methods()[0]
NUMBERS = count()


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """What a process left: `code` is negative where a signal ended it."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def errors(self) -> list[str]:
        """Its lines that tell of an error."""
        return [line for line in self.err.splitlines() if "error" in line or "Traceback" in line]


@dataclass(frozen=True, kw_only=True, slots=True)
class Running:
    """A command that runs."""

    process: ForkServerProcess
    out: Path
    err: Path
    began: float

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def end(self, timeout: float = 200) -> Ended:
        """Wait for it; a process that does not end in time is killed, and fails the test."""
        self.process.join(timeout)
        late = self.process.exitcode is None
        if late:
            self.process.kill()
            self.process.join()
        ended = Ended(
            code=self.process.exitcode or 0,
            out=self.out.read_text(),
            err=self.err.read_text(),
            seconds=time.monotonic() - self.began,
        )
        assert not late, f"still running after {timeout} s: {ended}"
        return ended


def start(
    folder: Path, *arguments: object, env: Mapping[str, str] | None = None, cwd: Path = ROOT
) -> Running:
    """Start `sno-dist ARGUMENTS` in `cwd`; its streams go to files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    number = next(NUMBERS)
    out, err = folder / f"{number}.out", folder / f"{number}.err"
    words = [str(argument) for argument in arguments]
    place = (str(cwd), dict(env or {}), str(out), str(err))
    process = FORKED.Process(target=_command, args=(words, *place))
    process.start()
    return Running(process=process, out=out, err=err, began=time.monotonic())


def start_ranks(
    size: int,
    folder: Path,
    *arguments: object,
    env: Mapping[str, str] | None = None,
    cwd: Callable[[int], Path] = lambda _: ROOT,
) -> list[Running]:
    """Start the ranks of one world, without an agent that would end the others with one."""
    place = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
    place["MASTER_PORT"] = str(free_port())
    return [
        start(
            folder,
            *arguments,
            env={**place, "RANK": str(rank), "LOCAL_RANK": str(rank), **(env or {})},
            cwd=cwd(rank),
        )
        for rank in range(size)
    ]


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition: Callable[[], bool], timeout: float = 200) -> None:
    """Look every few milliseconds until a condition holds.

    Raises:
        TimeoutError: If it does not hold in time.
    """
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not so after {timeout} s")
        time.sleep(0.005)


def _command(words: list[str], cwd: str, env: dict[str, str], out: str, err: str) -> None:
    for path, stream in ((out, 1), (err, 2)):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, stream)
        os.close(handle)
    os.chdir(cwd)
    os.environ.update({"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **env})
    import torch

    from sno_dist.cli.main import main

    torch.set_num_threads(1)
    # its loader workers start as they do from a shell, not from the server that this came from
    multiprocessing.set_start_method(DEFAULT, force=True)
    try:
        main(words)
    finally:
        # as at the end of any interpreter, but not of this kind of process
        atexit._run_exitfuncs()
