"""The parts of training: rates, the moving average, the loader in every world."""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sno_dist.config.schema import Config, Training
from sno_dist.errors import DataError, RunError
from sno_dist.model.batch import Batch
from sno_dist.runtime.workers import workers_watched
from sno_dist.runtime.world import World
from sno_dist.shards.build import build_shards
from sno_dist.shards.manifest import Manifest
from sno_dist.training.ema import Ema
from sno_dist.training.loader import StepBatches, batches, make_plan
from sno_dist.training.optim import learning_rates
from tests.unit.shards.small import small_config


def test_rates_rise_fall_and_rest() -> None:
    training = Training(
        steps=1000, warmup=99, learning_rate=1.0, final=0.1, autoencoder_end=0.5, autoencoder_rate=2
    )
    assert learning_rates(0, training)[0] == pytest.approx(0.01)
    assert learning_rates(99, training)[0] == pytest.approx(0.98, abs=0.01)
    assert learning_rates(999, training)[0] == pytest.approx(0.1, abs=0.001)
    assert learning_rates(499, training)[1] == pytest.approx(0.2, abs=0.001)
    assert learning_rates(500, training)[1] == 0
    rates = [learning_rates(step, training)[0] for step in range(100, 1000)]
    assert rates == sorted(rates, reverse=True)


def test_the_average_moves_where_bfloat16_would_not() -> None:
    weights = [torch.ones(4, 4)]
    ema = Ema(weights, 0.9999)
    weights[0].mul_(1.01)
    for step in range(100_000, 100_010):
        ema.update(weights, step)
    moved = ema.shadow[0].mean().item() - 1
    # near 1 a float32 resolves 6e-8, and a step is 1e-6
    assert moved == pytest.approx(0.01 * (1 - 0.9999**10), rel=0.1)
    assert weights[0].mean().item() == pytest.approx(1.01, rel=1e-6)


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Manifest]:
    config = small_config(tmp_path_factory.mktemp("population"))
    return config, build_shards(config)


def fingerprints(
    population: tuple[Config, Manifest], size: int, workers: int, start: int, stop: int
) -> dict[tuple[int, int], str]:
    """(step, slot) -> hash of everything that the slot's distribution brings to the step."""
    config, manifest = population
    found = {}
    for rank in range(size):
        world = World(rank=rank, size=size)
        dataset = StepBatches(config, manifest, world, dims=3)
        for step, batch in enumerate(batches(dataset, start, stop, workers), start):
            for place, slot in enumerate(dataset.slots(step)):
                part = batch.part(place, place + 1)
                names = ("context", "rows", "targets", "times", "noise", "posterior", "null")
                data = b"".join(getattr(part, name).numpy().tobytes() for name in names)
                found[step, slot] = hashlib.sha256(data).hexdigest()
    return found


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_batches_are_the_same_in_every_world(
    population: tuple[Config, Manifest], size: int, workers: int
) -> None:
    reference = fingerprints(population, 1, 0, 0, 6)
    assert len(set(reference.values())) == len(reference) == 36
    assert fingerprints(population, size, workers, 0, 6) == reference


@pytest.mark.parametrize("size", [1, 2, 5])
def test_context_sets_of_a_part_come_in_few_shapes(
    population: tuple[Config, Manifest], size: int
) -> None:
    config, manifest = population
    batch = StepBatches(config, manifest, World(rank=0, size=1), dims=3)[0]
    ends = [0, *batch.lengths.cumsum(0).tolist()]
    for start in range(0, len(batch.rows), size):
        part = batch.part(start, min(start + size, len(batch.rows)))
        count = int(part.lengths.sum())
        assert len(part.context) % 32 == 0 < count <= len(part.context) < count + 32
        assert torch.equal(part.context[:count], batch.context[ends[start] :][:count])


def test_resuming_at_a_step_needs_no_replay(population: tuple[Config, Manifest]) -> None:
    whole = fingerprints(population, 1, 0, 0, 6)
    late = fingerprints(population, 2, 1, 4, 6)
    assert late == {key: value for key, value in whole.items() if key[0] >= 4}


def test_a_distribution_too_small_for_a_step(population: tuple[Config, Manifest]) -> None:
    config, manifest = population
    training = config.training.model_copy(update={"targets": 70})
    with pytest.raises(DataError, match="smaller than its context set and targets"):
        make_plan(config.model_copy(update={"training": training}), manifest)


def test_a_missing_shard_is_named_in_training(tmp_path: Path) -> None:
    config = small_config(tmp_path)
    manifest = build_shards(config)
    for path in (tmp_path / "shards/seen").rglob("model*"):
        path.unlink()
    dataset = StepBatches(config, manifest, World(), dims=3)
    # from a worker the line comes as it is, without the worker's traceback
    for workers in (0, 1):
        with pytest.raises(DataError, match="^a shard is missing") as found:
            list(batches(dataset, 0, 2, workers))
        assert "Traceback" not in str(found.value)


def test_a_lost_worker_is_told(population: tuple[Config, Manifest]) -> None:
    config, manifest = population
    dataset = StepBatches(config, manifest, World(), dims=3)

    def lose() -> None:
        for batch in batches(dataset, 0, 10_000, 1):
            assert len(batch.lengths)
            for worker in multiprocessing.active_children():
                worker.kill()

    told = pytest.raises(RunError, match="^a loader worker was lost .* got: DataLoader worker")
    with told, workers_watched():
        lose()


class Stuck(StepBatches):
    """At its second step it waits, as for a server that is silent."""

    def __getitem__(self, step: int) -> Batch:
        if step:
            time.sleep(600)
        return super().__getitem__(step)


def test_a_worker_that_is_stuck_holds_up_no_end(population: tuple[Config, Manifest]) -> None:
    config, manifest = population
    stream = batches(Stuck(config, manifest, World(), dims=3), 0, 4, 1)
    assert len(next(stream).lengths)
    (worker,) = multiprocessing.active_children()
    del stream
    worker.join(30)
    assert worker.exitcode == -signal.SIGKILL


def test_a_worker_whose_loss_nobody_hears_of_ends_the_process() -> None:
    program = """
import multiprocessing, signal, time
from sno_dist.runtime import workers
workers.EVERY = workers.GRACE = 0.1
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
child.start()
workers.watch_workers([child.pid], lambda: child)
child.kill()
time.sleep(60)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert ended.returncode == RunError.exit_code
    assert ended.stderr.strip().startswith("error: a loader worker was lost | do: look for")
