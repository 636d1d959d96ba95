"""What each file of launch/accelerate starts, by the real launcher."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.forked import free_port, start, wait_for
from tests.distributed.test_training import SAVED
from tests.launch.stubs import ROOT
from tests.pipeline.small import small_run

PROGRAM = Path(__file__).with_name("place_program.py")
README = ROOT / "launch/README.md"
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


def two_nodes(*words: str, **site: str) -> list[subprocess.Popen[str]]:
    """The tasks of a job's two nodes, here on one machine, a rank each."""
    place = {"SLURM_NNODES": "2", "RANKS_PER_NODE": "1", **site}
    port = str(free_port())
    return [
        subprocess.Popen(
            ["bash", "launch/slurm/node.sh", "127.0.0.1", port, *words],
            cwd=ROOT,
            env={**ENVIRONMENT, **place, "SLURM_NODEID": str(node)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for node in range(2)
    ]


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("file", "words", "engine"),
    [
        ("fsdp2", "", "fsdp"),
        ("deepspeed", "--deepspeed_config_file launch/deepspeed/zero2.json", "deepspeed"),
    ],
)
def test_nodes_share_what_an_engine_shares(
    tmp_path: Path, file: str, words: str, engine: str
) -> None:
    run = tmp_path / "run"
    line = small_run(tmp_path / "shards", run, tmp_path / "judge", "training.steps=3")
    site = {"ACCELERATE_CONFIG": f"launch/accelerate/{file}.yaml", "ACCELERATE_OPTIONS": words}
    for stage in ("build-shards", "fit-embedding"):
        assert start(tmp_path / "streams", stage, *line).end().code == 0
    nodes = two_nodes("train", *line, **site)
    errors = [node.communicate(timeout=200)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], errors
    assert f"2 ranks on cpu, {engine}" in errors[0].splitlines()
    assert json.loads((run / "provenance.json").read_text())["ranks"] == 2
    assert (run / "training/step-00000003/COMPLETE").is_file()


def test_a_signal_to_one_nodes_task_alone_stops_both_nodes_at_one_saved_step(
    tmp_path: Path,
) -> None:
    run = tmp_path / "run"
    words = small_run(tmp_path / "shards", run, tmp_path / "judge", "training.steps=100000")
    for stage in ("build-shards", "fit-embedding"):
        assert start(tmp_path / "streams", stage, *words).end().code == 0
    nodes = two_nodes("train", *words)
    try:
        wait_for((run / "logs/rank-00000.jsonl").is_file, 90)
    finally:
        nodes[1].send_signal(signal.SIGUSR2)
    errors = [node.communicate(timeout=60)[1] for node in nodes]
    assert [node.returncode for node in nodes] == [1, 75], errors
    saved = [dict(SAVED.findall(error)) for error in errors]
    assert [list(told) for told in saved] == [["0"], ["1"]], errors
    assert saved[0]["0"] == saved[1]["1"]
    assert json.loads((run / "provenance.json").read_text())["ranks"] == 2


def test_without_slurm_the_exports_that_are_shown_make_a_launcher_wait_for_the_save(
    tmp_path: Path,
) -> None:
    shown = dict(re.findall(r"^export (PET_\w+)=(\S+)$", README.read_text(), re.M))
    run = tmp_path / "run"
    words = small_run(tmp_path / "shards", run, tmp_path / "judge", "training.steps=3000")
    for stage in ("build-shards", "fit-embedding"):
        assert start(tmp_path / "streams", stage, *words).end().code == 0
    ranks = ("launch/accelerate/one_machine.yaml", "--num_processes", "2")
    launcher = subprocess.Popen(
        [*LAUNCH, *ranks, "-m", "sno_dist", "train", *words],
        cwd=ROOT,
        env={**ENVIRONMENT, **shown},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for((run / "logs/rank-00000.jsonl").is_file, 90)
    finally:
        launcher.send_signal(signal.SIGUSR2)
    error = launcher.communicate(timeout=60)[1]
    saved = dict(SAVED.findall(error))
    assert saved.keys() == {"0", "1"}, error
    assert len(set(saved.values())) == 1
