"""What the ranks of test_engines run to lose a gradient: `FOLDER OVERRIDE...`.

They take one step, then one whose gradient is not finite though its loss is, and write to
FOLDER/<rank>.json what came of it.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from unittest.mock import patch

import torch

from sno_dist.cli.main import guarded
from sno_dist.config.load import load_config
from sno_dist.runtime import collectives
from sno_dist.runtime.accelerator import build_accelerator
from sno_dist.shards.manifest import open_manifest
from sno_dist.training.engines.factory import make_engine
from sno_dist.training.loader import StepBatches
from sno_dist.training.step import NotFiniteError, Stepper
from sno_dist.training.untrained import untrained_operator


def program() -> None:
    folder, overrides = Path(sys.argv[1]), sys.argv[2:]
    config = load_config(None, overrides)
    accelerator = build_accelerator(config.training.precision)
    manifest = open_manifest(config)
    torch.manual_seed(config.seed)
    operator = untrained_operator(config, manifest)
    engine = make_engine(accelerator, operator, config.training)
    stepper = Stepper(engine, config.training)
    data = StepBatches(config, manifest, collectives.world(), operator.autoencoder.size)
    stepper(data[0], 0)
    before = {name: tensor.clone() for name, tensor in engine.weights().items()}
    backward, told = engine.backward, ""
    with patch.object(engine, "backward", lambda loss: backward(loss * math.inf)):
        try:
            stepper(data[1], 1)
        except NotFiniteError as error:
            told = str(error)
    after = engine.weights()
    kept = all(torch.equal(before[name], after[name]) for name in before)
    facts = {"told": told, "kept": kept}
    (folder / f"{collectives.world().rank}.json").write_text(json.dumps(facts))
    collectives.barrier("the end")


if __name__ == "__main__":
    guarded(program)
