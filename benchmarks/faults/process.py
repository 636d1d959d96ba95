"""Commands under test: started, found with all that they start, signalled, and heard out."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

__all__ = ["Command", "Ended", "Role"]

ROOT = Path(__file__).resolve().parents[2]
PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
MARK = "SNO_FAULTS_COMMAND"
"""Set for a command and so for all that it starts, also where its launcher is gone."""
WORKER = "pt_data_worker"
"""The name that torch gives the main thread of a loader worker."""
ERROR = re.compile(r"^(?:\[rank (\d+)\] )?error: .+$", re.MULTILINE)
CRASH = re.compile(r"^(?:Fatal Python error|terminate called|Exception ignored).*$", re.MULTILINE)
PREFIX = re.compile(r"^\[rank\d+\]: ?", re.MULTILINE)
"""With which torch marks the lines of a rank's traceback."""
TRACE = "Traceback (most recent call last):\n"
LAUNCHER = "accelerate/commands/launch.py"
"""In the launcher's own traceback, which is its way to end after its ranks failed."""

Role = Literal["launcher", "rank", "worker"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a command ended.

    Args:
        code: Its exit status, negative where a signal ended it.
        errors: The lines in which it told of an error: rank, or -1 in a plain process, and line.
        crashes: The last lines of tracebacks other than the launcher's, and of crashes.
        sent: The signal that it was sent, and to whom.
        midway: Whether it was at its work when the fault hit it, and left some of it.
        seconds: From its start to the end of the last process.
        hung: Whether it had to be ended.
    """

    code: int
    errors: tuple[tuple[int, str], ...]
    crashes: tuple[str, ...]
    sent: tuple[Role, signal.Signals] | None
    midway: bool
    seconds: float
    hung: bool


class Command:
    """One launch of the command line.

    Args:
        words: Of `sno-dist`.
        ranks: 1: a plain process; more: so many ranks under `accelerate launch`.
        told: The file for what it tells on stderr.
        bound: Whether modes of files bind it even where its user is root.
    """

    def __init__(
        self, words: Sequence[str], ranks: int, told: Path, *, bound: bool = False
    ) -> None:
        self.sent: tuple[Role, signal.Signals] | None = None
        self.midway = False
        self._launched = ranks > 1
        self._told = told
        self._began = time.monotonic()
        environment = {k: v for k, v in os.environ.items() if k not in PLACE}
        environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", MARK: str(told)}
        with told.open("w") as stream:
            self._process = subprocess.Popen(
                [*_prefix(bound), *_launcher(ranks), "sno_dist", *words],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=stream,
            )

    @property
    def over(self) -> bool:
        """Whether the process that was started has ended; its ranks may live on without it."""
        return self._process.poll() is not None

    def processes(self) -> dict[Role, list[int]]:
        """Who is there, by role."""
        own = self._own()
        ranks = {pid for pid, known in own.items() if "RANK" in known["environ"]}
        found: dict[Role, list[int]] = {"launcher": [], "rank": [], "worker": []}
        for pid, known in own.items():
            if pid == self._process.pid:
                found["launcher" if self._launched else "rank"].append(pid)
            elif known["name"] == WORKER:
                found["worker"].append(pid)
            elif pid in ranks and known["ppid"] not in ranks:
                found["rank"].append(pid)
        return found

    def send(self, role: Role, pid: int, number: signal.Signals) -> bool:
        """Send one of its processes a signal; whether that was still there."""
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return False
        self.sent = (role, number)
        return True

    def end(self, patience: float, watch: Callable[[], None] = lambda: None) -> Ended:
        """Wait until it and all that it started have ended.

        Args:
            patience: Seconds after which those that are left are killed.
            watch: Called again and again meanwhile.
        """
        until = time.monotonic() + patience
        while not (self.over and not self._own()) and time.monotonic() < until:
            watch()
            time.sleep(0.03)
        hung = not self.over or bool(self._own())
        self.kill()
        text = PREFIX.sub("", self._told.read_text(errors="replace"))
        return Ended(
            code=self._process.wait(),
            errors=tuple((int(m[1] or -1), m[0]) for m in ERROR.finditer(text)),
            crashes=(*_tracebacks(text), *(m[0] for m in CRASH.finditer(text))),
            sent=self.sent,
            midway=self.midway,
            seconds=round(time.monotonic() - self._began, 1),
            hung=hung,
        )

    def kill(self) -> None:
        """End all of it, at once."""
        for pid in self._own():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait()

    def _own(self) -> dict[int, dict[str, Any]]:
        """Process -> what is known of it, of those that are there."""
        # what ends meanwhile, or may not be asked, has no environment
        there = psutil.process_iter(["pid", "ppid", "name", "environ"], ad_value=None)
        return {
            process.pid: process.info
            for process in there
            if (process.info["environ"] or {}).get(MARK) == str(self._told)
        }


def _prefix(bound: bool) -> list[str]:
    """Root overrides the modes of files by a capability, which can be left behind."""
    if not bound or os.geteuid():
        return []
    return [shutil.which("setpriv") or "setpriv", "--bounding-set=-dac_override"]


def _launcher(ranks: int) -> list[str]:
    if ranks == 1:
        return [sys.executable, "-m"]
    file = ROOT / "launch/accelerate/one_machine.yaml"
    launch = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch"]
    return [*launch, "--config_file", str(file), "--num_processes", str(ranks), "-m"]


def _tracebacks(text: str) -> list[str]:
    """The last line of each traceback that is not the launcher's."""
    found = []
    for part in text.split(TRACE)[1:]:
        lines = part.splitlines()
        frames = next((i for i, line in enumerate(lines) if line[:1] != " "), len(lines) - 1)
        if not any(LAUNCHER in line for line in lines[:frames]):
            found.append(lines[frames][:300])
    return found
