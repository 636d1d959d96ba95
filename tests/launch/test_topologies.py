"""What each file of launch/accelerate starts, by the real launcher."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.forked import free_port
from tests.launch.stubs import ROOT

PROGRAM = Path(__file__).with_name("place_program.py")
LAUNCH = [sys.executable, "-m", "accelerate.commands.accelerate_cli", "launch", "--config_file"]
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


@pytest.mark.parametrize(("topology", "ranks"), [("one_gpu", 1), ("one_node_8_gpus", 8)])
def test_a_machines_ranks_are_counted_by_the_file_alone(topology: str, ranks: int) -> None:
    done = subprocess.run(
        [*LAUNCH, f"launch/accelerate/{topology}.yaml", PROGRAM],
        cwd=ROOT,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    told = sorted(done.stdout.splitlines())
    assert told == [f"rank {rank} of {ranks}" for rank in range(ranks)]


def test_launchers_on_two_nodes_make_one_world(tmp_path: Path) -> None:
    place = {"SLURM_NNODES": "2", "RANKS_PER_NODE": "1"}
    words = ["127.0.0.1", str(free_port()), "doctor", str(tmp_path)]
    nodes = [
        subprocess.Popen(
            ["bash", "launch/slurm/node.sh", *words],
            cwd=ROOT,
            env={**ENVIRONMENT, **place, "SLURM_NODEID": str(node)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for node in range(2)
    ]
    (out, err), (other, _) = [node.communicate(timeout=100) for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], err
    assert "all_reduce, broadcast, gather, barrier over 2 rank(s)\n" in out
    assert other == ""
