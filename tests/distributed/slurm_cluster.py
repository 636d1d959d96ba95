"""A real Slurm of two nodes on this machine: folders, ports and keys of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from tests.distributed.forked import free_port, wait_for

__all__ = ["NODES", "Cluster", "cluster", "why_not"]

NODES = ("node0", "node1")
DAEMONS = ("munged", "slurmctld", "slurmd")
CONFIG = """\
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={root}/munge.socket,cred_expire={patience}
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SlurmdTimeout={patience}
KillWait=5
MinJobAge=3600
SchedulerParameters=bf_interval=1,sched_interval=1
{nodes}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=usual Nodes=ALL Default=YES PriorityTier=1 GraceTime=20
PartitionName=graceless Nodes=ALL PriorityTier=1
PartitionName=urgent Nodes=ALL PriorityTier=2 PreemptMode=OFF
"""
FAILED = {"BOOT_FAIL", "CANCELLED", "FAILED", "TIMEOUT"}
PATIENCE = 10
"""Seconds until a silent node counts as lost, and until a requeued job may start again."""
KNOWN = ("ppid", "name", "environ")
"""What is asked of each process of this machine."""


def why_not() -> str:
    """Why no cluster can be started here; empty if one can."""
    missing = [name for name in (*DAEMONS, "sbatch") if shutil.which(name, path=_path()) is None]
    if missing:
        return f"Slurm's programs are not installed: {', '.join(missing)}"
    return "" if os.geteuid() == 0 else "Slurm's daemons are started by root alone"


@dataclass(frozen=True, kw_only=True, slots=True)
class Cluster:
    """A controller and two nodes.

    Args:
        root: Holds all that they write.
        environment: What a command needs to speak to them.
        daemons: Those that run, by name; a node's by the node's.
    """

    root: Path
    environment: dict[str, str]
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def call(self, *words: str, cwd: Path | None = None) -> str:
        """What a command prints."""
        done = self.run(*words, cwd=cwd)
        assert done.returncode == 0, done
        return done.stdout

    def run(self, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """A command that speaks to Slurm."""
        return subprocess.run(
            words,
            env=self.environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def job(self, number: str) -> dict[str, str]:
        """What Slurm knows of a job."""
        words = self.call("scontrol", "--oneliner", "show", "job", number).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def wait(self, number: str, timeout: float, **facts: str) -> dict[str, str]:
        """Look at a job until Slurm says these things of it, or that it has failed."""
        end = time.monotonic() + timeout
        while not (job := self.job(number)).items() >= facts.items():
            assert job["JobState"] not in FAILED - set(facts.values()), job
            assert time.monotonic() < end, f"not {facts} after {timeout} s: {job}"
            time.sleep(0.3)
        return job

    def start(self, name: str, *words: str) -> None:
        """Start a daemon in the foreground."""
        self.daemons[name] = subprocess.Popen(
            words, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def start_node(self, node: str) -> None:
        """Start a node, or start it again, as after a reboot."""
        self.start(node, "slurmd", "-D", "-N", node)

    def lose_node(self, node: str) -> None:
        """Kill a node's daemon and all that runs on it, as if its power were cut."""
        lost = self.daemons.pop(node)
        lost.kill()
        lost.wait()
        _end_all(self.processes(SLURMD_NODENAME=node))

    def is_up(self) -> bool:
        """Whether all nodes wait for work."""
        states = self.run("sinfo", "--noheader", "--Node", "--format=%T").stdout.split()
        return set(states) == {"idle"}

    def processes(self, **marks: str) -> set[int]:
        """The processes of this cluster whose environment has these variables too."""
        known = {"SLURM_CONF": self.environment["SLURM_CONF"], **marks}.items()
        there = {process.pid: process.info for process in psutil.process_iter(KNOWN)}
        found = {pid for pid, own in there.items() if known <= (own["environ"] or {}).items()}
        # the step daemon above a task has no environment that tells
        above = {there[pid]["ppid"] for pid in found} & there.keys()
        return found | {pid for pid in above if there[pid]["name"].startswith("slurmstepd")}

    def stop(self) -> None:
        """End all jobs and daemons."""
        for daemon in self.daemons.values():
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        _end_all(self.processes())


def _end_all(processes: Iterable[int]) -> None:
    for pid in processes:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextmanager
def cluster(root: Path) -> Iterator[Cluster]:
    """Start a cluster below a folder, and end it with all its jobs."""
    (root / "state").mkdir(parents=True)
    lines = [
        f"NodeName={node} NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1"
        f" Port={free_port()} CPUs=1"
        for node in NODES
    ]
    config = CONFIG.format(
        host=socket.gethostname(),
        port=free_port(),
        root=root,
        patience=PATIENCE,
        nodes="\n".join(lines),
    )
    (root / "slurm.conf").write_text(config)
    key = root / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    environment = {**os.environ, "SLURM_CONF": str(root / "slurm.conf"), "PATH": _path()}
    made = Cluster(root=root, environment=environment)
    files = [f"--{name}-file={root / 'munge'}.{name}" for name in ("key", "pid", "log", "seed")]
    socket_name = f"--socket={root / 'munge.socket'}"
    try:
        made.start("munged", "munged", "--foreground", "--force", socket_name, *files)
        wait_for((root / "munge.socket").exists)
        made.start("slurmctld", "slurmctld", "-D")
        for node in NODES:
            made.start_node(node)
        try:
            wait_for(made.is_up, timeout=60)
        except TimeoutError:
            last = (root / "slurmctld.log").read_text().splitlines()[-1]
            pytest.skip(f"Slurm's daemons do not come up here: {last}")
        yield made
    finally:
        made.stop()


def _path() -> str:
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin"
