"""What the ranks of test_collectives run: `facts FOLDER`, `lose RANK` or `stall RANK`."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch

from sno_dist.cli.main import guarded
from sno_dist.config.schema import Folder, Split
from sno_dist.runtime import accelerator, collectives, rng
from sno_dist.runtime.writing import writing
from sno_dist.shards.sources.factory import make_source

SLOTS = 23


def facts(folder: str) -> None:
    """Write what this rank saw to FOLDER/<rank>.json; FOLDER/data holds arrays."""
    world = collectives.world()
    sums = torch.zeros(SLOTS, dtype=torch.float64)
    for slot in world.deal(SLOTS):
        values = torch.from_numpy(rng.generator(0, "test", slot).standard_normal(1000))
        sums[slot] = (values.exp() / 3).sum()
    total = collectives.sum_over_ranks(sums, "the sum")
    told = collectives.broadcast({"rank": world.rank, "pi": torch.tensor(3.25)}, "the broadcast")
    seen = {
        "size": world.size,
        "sum": total.numpy().tobytes().hex(),
        "own kept": bool((sums == 0).sum() == SLOTS - len(world.deal(SLOTS))),
        "raised by": [collectives.any_rank(world.rank == r, "the flag") for r in range(world.size)],
        "raised by none": collectives.any_rank(False, "no flag"),
        "broadcast": [told["rank"], told["pi"].item()],
        "gather": collectives.gather(f"rank {world.rank}", "the gather"),
        "audit": make_source(Folder(kind="folder", path=f"{folder}/data"), Split()).audit(),
    }
    with writing(Path(folder, "sealed"), "thing", {}) as inside:
        for number in world.deal(5):
            (inside / f"{number}").write_bytes(bytes(number))
    Path(folder, f"{world.rank}.json").write_text(json.dumps(seen))
    collectives.barrier("the end")


def lose(rank: str) -> None:
    """Meet once; then one rank is killed and the others wait for it."""
    collectives.barrier("the first step")
    if collectives.world().rank == int(rank):
        os.kill(os.getpid(), signal.SIGKILL)
    collectives.barrier("the second step")


def stall(rank: str) -> None:
    """Meet once; then one rank stands still and the others wait for it."""
    collectives.barrier("the first step")
    if collectives.world().rank == int(rank):
        os.kill(os.getpid(), signal.SIGSTOP)
    collectives.barrier("the second step")


def program() -> None:
    accelerator.start()
    {"facts": facts, "lose": lose, "stall": stall}[sys.argv[1]](sys.argv[2])


if __name__ == "__main__":
    guarded(program)
