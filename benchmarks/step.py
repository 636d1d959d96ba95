"""How much of the bare speed of the model is left in the real training loop.

The loop is `train` itself: loader, forward, backward, reduction, checks, clipping, update, average
of the weights, curves. Bare is forward, backward and optimizer step alone, on the very batches
that the loop has just seen, already on the device. The two take turns in one process, so that
what else the machine does hits both; the smaller the noise, the closer the pairs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from benchmarks import finish, machine
from benchmarks.bar import Bar
from sno_dist.config.load import load_config
from sno_dist.config.schema import Config
from sno_dist.embedding.fit import fit_embedding
from sno_dist.model.batch import Batch
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime.accelerator import autocast, device
from sno_dist.runtime.precision import settled
from sno_dist.runtime.world import World
from sno_dist.shards.build import build_shards
from sno_dist.shards.manifest import Manifest
from sno_dist.training import train as training
from sno_dist.training.loader import StepBatches, batches
from sno_dist.training.untrained import untrained_operator

GOAL = 0.95


class Bare:
    """Forward, backward and optimizer step, as short as PyTorch has them.

    Args:
        config: The run's.
        operator: A copy that nothing else uses.
    """

    def __init__(self, config: Config, operator: ScoreNeuralOperator) -> None:
        self._training, self._operator = config.training, operator
        self._optimizer = torch.optim.AdamW(
            operator.parameters(), lr=config.training.learning_rate, fused=True
        )

    def __call__(self, batch: Batch) -> None:
        """One step."""
        objective = self._training.objective
        with autocast(self._training.precision):
            losses = self._operator(batch, objective, objective.kl)
        losses["total"].backward()
        self._optimizer.step()
        self._optimizer.zero_grad()


class Turns(Bar):
    """Every `length` steps of the loop the bare step has its turn.

    Args:
        bare: One bare step.
        made: A step's batch, in memory.
        length: Steps of a turn.
    """

    def __init__(self, bare: Bare, made: Callable[[int], Batch], length: int) -> None:
        self._bare, self._made, self._length = bare, made, length
        self._done, self._start = 0, 0.0
        self._worked = 0.0
        self.loop: list[float] = []
        self.bare: list[float] = []
        self.loop_work: list[float] = []
        self.bare_work: list[float] = []
        self.waits: list[float] = []
        self._waited = 0.0

    def advance(self, count: int = 1, note: str = "") -> None:
        """Count a step of the loop, and take the turn after the last one of its length."""
        del note
        self._done += count
        # The loop writes its curves after this call, at the last step of a turn; so that they
        # are counted, a turn ends one step later.
        if self._done % self._length != 1 or self._done == 1:
            return
        self._end(self.loop, self.loop_work)
        self.waits.append(self._waited)
        ready = [self._made(step) for step in range(self._done - self._length, self._done)]
        self.begin()
        for batch in ready:
            self._bare(batch)
        self._end(self.bare, self.bare_work)
        self._waited = 0.0
        self.begin()

    def begin(self) -> None:
        """Start the clocks."""
        _synchronize()
        self._start, self._worked = time.perf_counter(), time.process_time()

    def _end(self, seconds: list[float], work: list[float]) -> None:
        _synchronize()
        seconds.append(time.perf_counter() - self._start)
        work.append(time.process_time() - self._worked)

    def stream(self, *arguments: Any) -> Iterator[Batch]:
        """As `batches`, with the time that the loop waits for it."""
        source = batches(*arguments)
        while True:
            start = time.perf_counter()
            batch = next(source, None)
            self._waited += time.perf_counter() - start
            if batch is None:
                return
            yield batch


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def measure(config: Config, manifest: Manifest, length: int) -> Turns:
    """Train once, with the bare step's turns between."""
    table = fit_embedding(config, manifest)
    operator = untrained_operator(config, manifest, table.tensors).to(device())
    data = StepBatches(config, manifest, World(), operator.autoencoder.size)
    turns = Turns(Bare(config, operator), lambda step: data[step].to(device()), length)
    with (
        patch.object(training, "Progress", turns),
        patch.object(training, "batches", turns.stream),
    ):
        training.train(config, manifest, table)
    return turns


def main() -> None:
    """Measure, print the figures, and say whether the goal is met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), help="none: cuda where there is one")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--length", type=int, default=20, help="steps of a turn")
    parser.add_argument("--threads", type=int, help="of torch; none: as it decides")
    parser.add_argument("--out", type=Path)
    parser.add_argument("overrides", nargs="*", help="section.key=value")
    options = parser.parse_args()
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU here")
    if options.threads:
        torch.set_num_threads(options.threads)
    # One turn to warm up; one step more, since a turn ends one step late.
    steps = (options.rounds + 1) * options.length + 1
    with tempfile.TemporaryDirectory() as folder:
        config = load_config(
            None,
            [
                f"shards.path={folder}/shards",
                f"run={folder}/run",
                "shards.source.model=300",
                "shards.source.judge=1",
                "shards.source.reference=2",
                f"training.steps={steps}",
                *options.overrides,
            ],
        )
        turns = measure(config, build_shards(config), options.length)
    loop, bare = turns.loop[1:], turns.bare[1:]
    ratios = [b / a for a, b in zip(loop, bare, strict=True)]
    samples = config.training.distributions * config.training.targets * options.length
    result: dict[str, Any] = {
        "benchmark": "step",
        "machine": machine(),
        "device": str(device()),
        "precision": settled(config.training.precision, device()),
        "workers": config.training.workers,
        "shape": {"P": config.training.distributions, "B": config.training.targets},
        "samples_per_second": {
            "loop": round(samples / statistics.median(loop), 1),
            "bare": round(samples / statistics.median(bare), 1),
        },
        "ratio": round(statistics.median(ratios), 3),
        "ratio_of_totals": round(sum(bare) / sum(loop), 3),
        # Processor seconds of this process: the same comparison where others use the machine too.
        "ratio_of_work": round(sum(turns.bare_work[1:]) / sum(turns.loop_work[1:]), 3),
        "ratios": [round(r, 3) for r in ratios],
        "data_wait": round(sum(turns.waits[1:]) / sum(loop), 4),
        "goal": GOAL,
        "met": statistics.median(ratios) >= GOAL,
    }
    finish(result, options.out)


if __name__ == "__main__":
    main()
