"""What the ranks of test_footprint run: `FOLDER OVERRIDE...`.

They take a few steps and write to FOLDER/<rank>.json what each holds, and what the loopback
interface has carried meanwhile.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from sno_dist.cli.main import guarded
from sno_dist.config.load import load_config
from sno_dist.config.schema import Config
from sno_dist.runtime import collectives
from sno_dist.runtime.accelerator import build_accelerator, engine_name
from sno_dist.shards.manifest import open_manifest
from sno_dist.training.ema import Ema
from sno_dist.training.engines.engine import Engine
from sno_dist.training.engines.factory import make_engine
from sno_dist.training.loader import StepBatches
from sno_dist.training.step import Stepper
from sno_dist.training.untrained import untrained_operator

BEFORE, COUNTED = 4, 4
"""Steps in which engines settle, and then steps whose bytes are counted."""


class Ranks:
    """A run's parts on one rank, as training has them."""

    def __init__(self, config: Config) -> None:
        accelerator = build_accelerator(config.training.precision)
        manifest = open_manifest(config)
        torch.manual_seed(config.seed)
        operator = untrained_operator(config, manifest)
        self.engine = make_engine(accelerator, operator, config.training)
        self.ema = Ema(self.engine.pieces(), config.training.ema)
        self._stepper = Stepper(self.engine, config.training)
        dims = operator.autoencoder.size
        self._data = StepBatches(config, manifest, collectives.world(), dims)
        self.shown = 0
        self.engine.optimizer.register_step_pre_hook(self._look)

    def steps(self, first: int, last: int) -> None:
        for step in range(first, last):
            self.shown = 0
            self._stepper(self._data[step], step)
            self.ema.update(self.engine.pieces(), step)

    def _look(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Add up the gradients that the optimizer is shown, which may be group by group."""
        shown = [p.grad for group in optimizer.param_groups for p in group["params"]]
        self.shown += sum(local(g).nbytes for g in shown if g is not None)


def local(tensor: Tensor) -> Tensor:
    """What this rank has of a tensor."""
    own = getattr(tensor, "to_local", None)
    return own() if own else tensor


def held(tensors: Iterable[Tensor]) -> int:
    """Bytes of memory behind tensors, each piece once."""
    storages = [local(tensor).untyped_storage() for tensor in tensors]
    return sum({s.data_ptr(): s.nbytes() for s in storages}.values())


def carried() -> int:
    """Bytes that the loopback interface of this network has carried."""
    return psutil.net_io_counters(pernic=True, nowrap=False)["lo"].bytes_recv


def master(engine: Engine) -> Iterable[Tensor]:
    """DeepSpeed's own copy of the weights."""
    return engine._flat_weights() if engine_name() == "deepspeed" else []  # pyright: ignore


def deepspeed_sizes(engine: Engine) -> list[int]:
    if engine_name() != "deepspeed":
        return []
    zero: Any = engine.wrapped
    section = zero._config.zero_config
    return [
        section.reduce_bucket_size,
        section.param_persistence_threshold,
        section.max_reuse_distance,
    ]


def program() -> None:
    folder, overrides = Path(sys.argv[1]), sys.argv[2:]
    ranks = Ranks(load_config(None, overrides))
    engine, world = ranks.engine, collectives.world()
    ranks.steps(0, BEFORE)
    collectives.barrier("before counting")
    before = carried()
    collectives.barrier("counting")
    ranks.steps(BEFORE, BEFORE + COUNTED)
    collectives.barrier("after counting")
    sent = (carried() - before) / (COUNTED * world.size)
    operator = engine.operator
    facts = {
        "weights": held([*engine.pieces(), *operator.parameters()]) + held(operator.buffers()),
        "gradients": ranks.shown,
        "moments": held(t for state in engine.optimizer.state.values() for t in state.values()),
        "master": held(master(engine)),
        "averages": held(ranks.ema.shadow),
        "sent": sent,
        "deepspeed": deepspeed_sizes(engine),
    }
    (folder / f"{world.rank}.json").write_text(json.dumps(facts))
    collectives.barrier("the end")


if __name__ == "__main__":
    guarded(program)
