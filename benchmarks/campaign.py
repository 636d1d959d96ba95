"""Many runs by the command that a user types, one thread each, as many at a time as cores.

A run that is complete is found so by its own stages, and refused where its settings have changed;
an interrupted campaign goes on. Runs of the same data share their shards, and their judge: the
first makes them, the others wait until they are there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

__all__ = ["Run", "carry_out", "finished", "interval"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run.

    Args:
        name: Its folder within the campaign's.
        config: The file.
        overrides: What differs from it.
        shared: Setting -> folder within the campaign's of what the run shares with others, such
            as `shards.path`.
    """

    name: str
    config: str
    overrides: Sequence[str] = ()
    shared: Mapping[str, str] = field(default_factory=dict)


def carry_out(work: Path, runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Carry out what is missing of some runs; what `finished` says of each, in their order.

    Args:
        work: The campaign's folder.
        runs: The runs.

    Raises:
        CalledProcessError: If a run fails, when the others have ended; its log tells why.
    """
    work.mkdir(parents=True, exist_ok=True)
    # whoever holds a folder's makes it, if it is not there yet
    makers: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        launched = [
            pool.submit(_launch, work, run, [makers[name] for name in sorted(run.shared.values())])
            for run in runs
        ]
        try:
            wait(launched)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)  # those that have not begun
            raise
    for each in launched:
        each.result()
    return [finished(work / run.name) for run in runs]


def finished(folder: Path) -> dict[str, Any]:
    """The summary of a run that is complete, with its folder as `folder`."""
    summary = json.loads((folder / "evaluation/summary.json").read_text())
    return {**summary, "folder": folder}


def _launch(work: Path, run: Run, makers: Sequence[threading.Lock]) -> None:
    shared = {key: work / name for key, name in run.shared.items()}
    line = ["-c", run.config, f"run={work / run.name}", *run.overrides]
    line += [f"{key}={path}" for key, path in shared.items()]
    command = [sys.executable, "-m", "sno_dist", "run", *line]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (work / f"{run.name}.log").open("a") as log:
        with ExitStack() as made:
            for maker in makers:
                made.enter_context(maker)
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            _wait(process, [path / "COMPLETE" for path in shared.values()])
        if process.wait():
            raise subprocess.CalledProcessError(process.returncode, command)


def _wait(process: subprocess.Popen[bytes], marks: Sequence[Path]) -> None:
    while process.poll() is None and not all(mark.is_file() for mark in marks):
        time.sleep(1)


def interval(values: Sequence[float]) -> dict[str, Any]:
    """The mean of independent values, and its 95 % interval by Student's law."""
    found: dict[str, Any] = {"mean": float(np.mean(values)), "values": list(values)}
    if len(values) > 1:
        half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
        found["interval"] = [found["mean"] - half, found["mean"] + half]
    return found
