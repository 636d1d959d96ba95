"""A launcher that is killed before its ranks have met leaves nobody waiting."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from tests.distributed.forked import free_port, start
from tests.distributed.launch import launch
from tests.pipeline.small import small_run

LAUNCHER = """
import subprocess, sys, time
rank = subprocess.Popen([sys.executable, "-m", "sno_dist", "doctor"])
print(rank.pid, flush=True)
time.sleep(60)
"""


def is_there(process: int) -> bool:
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("waits", [False, True], ids=["at once", "while it waits"])
def test_a_rank_without_launcher_ends(tmp_path: Path, waits: bool) -> None:
    # rank 1 of 2, whose rank 0 never answers
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        end_the_launcher(tmp_path, silent, waits)


def end_the_launcher(tmp_path: Path, silent: socket.socket, waits: bool) -> None:
    port = silent.getsockname()[1]
    world = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    world |= {"TORCHELASTIC_RUN_ID": "none"}
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "told").open("w") as told:
        launcher = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER],
            stdout=subprocess.PIPE,
            stderr=told,
            env={**os.environ, **world, **place, "ACCELERATE_USE_CPU": "true"},
        )
    with launcher:
        assert launcher.stdout is not None
        rank = int(launcher.stdout.readline())
        met = silent.accept()[0] if waits else None
        launcher.kill()
    until = time.monotonic() + 60
    while is_there(rank) and time.monotonic() < until:
        time.sleep(0.1)
    assert not is_there(rank)
    if met is not None:
        met.close()
    assert (tmp_path / "told").read_text().splitlines()[-1] == (
        "[rank 1] error: rank 1 lost contact with another rank during the start | "
        "got: the launcher has ended | do: run the same command again"
    )


@pytest.mark.parametrize(
    ("rank", "told"),
    [
        (0, "Timed out after 5 seconds waiting for clients. 1/2 clients joined."),
        (1, "The client socket has timed out after 4000ms while trying to connect to "),
    ],
)
def test_a_rank_that_does_not_come_ends_the_other_with_what_it_waited_for(
    tmp_path: Path, rank: int, told: str
) -> None:
    port = str(free_port())
    world = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank)}
    world |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "SNO_DIST_TIMEOUT": "4"}
    words = small_run(tmp_path / "shards", tmp_path / "run", tmp_path / "judge")
    ended = start(tmp_path, "build-shards", *words, env=world).end()
    assert ended.code == 5
    assert "Traceback" not in ended.err
    assert ended.err.splitlines()[-1].startswith(
        f"[rank {rank}] error: rank {rank} lost contact with another rank during the start, when "
        f"2 ranks meet at 127.0.0.1:{port} within 4 s (SNO_DIST_TIMEOUT) | got: {told}"
    )


@pytest.mark.parametrize("stage", ["run", "train"])
def test_a_launcher_that_contradicts_the_config_is_refused_before_anything_is_made(
    tmp_path: Path, stage: str
) -> None:
    words = small_run(tmp_path / "shards", tmp_path / "run", tmp_path / "judge")
    asked = {"ACCELERATE_MIXED_PRECISION": "bf16"}
    ended = start(tmp_path / "streams", stage, *words, env=asked).end()
    assert ended.code == 2
    assert ended.errors == [
        "error: the launcher and the run config disagree on precision | "
        "at: accelerate --mixed_precision against training.precision | got: bf16 against fp32 | "
        "do: leave precision to the run config"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["streams"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="here the GPU would be found")
def test_gpus_that_torch_does_not_see_are_no_reason_to_take_the_cpu(tmp_path: Path) -> None:
    place = {"SLURM_GPUS_ON_NODE": "4", "CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    words = ["build-shards", "-c", "configs/smoke.yaml", f"shards.path={tmp_path / 'shards'}"]
    done = launch(1, "sno_dist", *words, env=place)
    assert "error: this node's GPUs are not usable" in done.stderr
    assert "got: no GPU, where Slurm gave 4" in done.stderr
    hidden = launch(1, "sno_dist", *words, env={**place, "CUDA_VISIBLE_DEVICES": ""})
    assert hidden.returncode == 0, hidden.stderr
    assert "1 rank on cpu" in hidden.stderr
