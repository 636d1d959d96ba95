"""Start real ranks on gloo: by `accelerate launch`, or bare where its agent would interfere."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["bare_ranks", "launch"]

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "launch/accelerate/one_machine.yaml"
OURS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def launch(
    nprocs: int,
    target: str | Path,
    *args: object,
    env: Mapping[str, str] | None = None,
    timeout: float = 200,
    cwd: str | Path = ROOT,
    options: Sequence[str] = ("--config_file", str(CONFIG)),
) -> subprocess.CompletedProcess[str]:
    """Run a script (a path) or a module (a dotted name) on `nprocs` ranks and wait for it.

    The file of `make demo` is what launches, unless `options` name another; it takes a free port
    each time.

    Raises:
        subprocess.TimeoutExpired: After `timeout` seconds, with the ranks ended.
    """
    module = [] if str(target).endswith(".py") else ["-m"]
    # `accelerate-launch`, which reads no transformers for the sake of `accelerate`'s other commands
    command = [sys.executable, "-m", "accelerate.commands.launch"]
    command += [*options, "--num_processes", str(nprocs), *module]
    process = subprocess.Popen(
        [*command, str(target), *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(env),
        cwd=cwd,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException:
        # TERM, not KILL: the agent passes it on to the ranks, which would else outlive it.
        process.terminate()
        try:
            process.communicate(timeout=40)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def bare_ranks(
    nprocs: int, script: str | Path, *args: object, env: Mapping[str, str] | None = None
) -> list[subprocess.Popen[str]]:
    """Start ranks without an agent, which would end the others as soon as one is lost."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    ranks = []
    for rank in range(nprocs):
        place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(nprocs)}
        place |= {"LOCAL_WORLD_SIZE": str(nprocs), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks.append(
            subprocess.Popen(
                [sys.executable, str(script), *map(str, args)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=_environment({**place, **(env or {})}),
                cwd=ROOT,
            )
        )
    return ranks


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    base = {name: value for name, value in os.environ.items() if name not in OURS}
    base |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    return {**base, **(extra or {})}
