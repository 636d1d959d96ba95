"""What the ranks of test_training run first: `FOLDER OVERRIDE...`.

They train a run to its end, undisturbed; then take a few steps by hand and write to
FOLDER/<rank>.json what each holds.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import torch

from sno_dist.cli.main import guarded
from sno_dist.config.load import load_config
from sno_dist.config.schema import Config
from sno_dist.embedding.fit import fit_embedding
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime import collectives
from sno_dist.runtime.accelerator import build_accelerator
from sno_dist.shards.build import build_shards
from sno_dist.shards.manifest import open_manifest
from sno_dist.training.checkpoint import open_checkpoint
from sno_dist.training.ema import Ema
from sno_dist.training.engines.factory import make_engine
from sno_dist.training.loader import StepBatches
from sno_dist.training.step import Stepper, is_rank_agreed
from sno_dist.training.train import train

STEPS = 5


def take_steps(config: Config) -> dict[str, object]:
    """The hash of all that this rank holds after each step, and what the ranks find of it."""
    accelerator = build_accelerator(config.training.precision)
    manifest = open_manifest(config)
    spec = open_checkpoint(config, manifest).operator().spec
    torch.manual_seed(config.seed)
    operator = ScoreNeuralOperator(spec)
    engine = make_engine(accelerator, operator, config.training)
    ema = Ema(engine.pieces(), config.training.ema)
    stepper = Stepper(engine, config.training)
    world = collectives.world()
    data = StepBatches(config, manifest, world, operator.autoencoder.size)
    held = []
    for step in range(STEPS):
        stepper(data[step], step)
        ema.update(engine.pieces(), step)
        tensors = [*operator.state_dict().values(), *ema.shadow]
        held.append(hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest())
    facts: dict[str, object] = {"held": held, "agreed": is_rank_agreed(engine.pieces())}
    facts["drawn"] = [draw.slot for draw in data.read(0)[0]]
    if world.rank == world.size - 1:
        with torch.no_grad():
            operator.null[0] += 1e-6
    return {**facts, "agreed when one differs": is_rank_agreed(engine.pieces())}


def program() -> None:
    folder, overrides = Path(sys.argv[1]), sys.argv[2:]
    config = load_config(None, overrides)
    manifest = build_shards(config)
    train(config, manifest, fit_embedding(config, manifest))
    facts = take_steps(config)
    (folder / f"{collectives.world().rank}.json").write_text(json.dumps(facts))
    collectives.barrier("the end")


if __name__ == "__main__":
    guarded(program)
