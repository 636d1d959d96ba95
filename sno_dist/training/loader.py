"""Batches of one rank: the plan's draws, read from the shards, with the step's random numbers."""

from __future__ import annotations

import atexit
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from sno_dist.config.schema import Config
from sno_dist.errors import SnoError
from sno_dist.model.batch import Batch, padded
from sno_dist.runtime.preemption import ignore_signals
from sno_dist.runtime.rng import generator, normals
from sno_dist.runtime.workers import watch_workers
from sno_dist.runtime.world import World
from sno_dist.shards.manifest import Manifest
from sno_dist.shards.plan import Draw, StepPlan
from sno_dist.shards.reader import reader_of

__all__ = ["StepBatches", "batches", "make_plan"]


def make_plan(config: Config, manifest: Manifest) -> StepPlan:
    """The plan of a config's run.

    Raises:
        DataError: If a seen distribution is too small for one slot.
    """
    seen = manifest.split("seen")
    plan = StepPlan(
        seed=config.seed,
        counts=[entry.count("model") for entry in seen],
        distributions=config.training.distributions,
        targets=config.training.targets,
        references=config.training.references,
        context=config.training.context,
        exponent=config.training.context_exponent,
    )
    plan.check([entry.name for entry in seen])
    return plan


Samples = NDArray[np.generic]


class StepBatches(Dataset[Batch]):
    """Step number -> this rank's share of the global batch; pure, so any step can be asked for.

    Args:
        config: The run's.
        manifest: The population.
        world: Which share.
        dims: Z, entries of a latent.
    """

    def __init__(self, config: Config, manifest: Manifest, world: World, dims: int) -> None:
        self._plan = make_plan(config, manifest)
        self._seen = manifest.split("seen")
        self._reader = reader_of(config, manifest)
        self._world, self._seed, self._dims = world, config.seed, dims
        self._targets, self._null = config.training.targets, config.training.objective.drop

    def __getitem__(self, step: int) -> Batch:
        """The batch of one step."""
        draws, context, targets, references = self.read(step)
        sources = [generator(self._seed, "noise", step, d.slot) for d in draws]
        uniform = np.stack([s.random((2, self._targets), np.float32) for s in sources])
        noise = normals(sources, (2, self._targets, self._dims))
        return Batch(
            context=padded(torch.from_numpy(context)),
            lengths=torch.tensor([len(d.context) for d in draws]),
            rows=torch.tensor([d.row for d in draws]),
            targets=torch.from_numpy(targets),
            references=torch.from_numpy(references),
            times=torch.from_numpy(uniform[:, 0]),
            noise=torch.from_numpy(noise[:, 0]),
            posterior=torch.from_numpy(noise[:, 1]),
            null=torch.from_numpy(uniform[:, 1] < self._null),
        )

    def slots(self, step: int) -> list[int]:
        """Which slots of a step this rank takes: as many context samples as the others'."""
        return self._world.deal_evenly(self._plan.context_sizes(step))

    def read(self, step: int) -> tuple[list[Draw], Samples, Samples, Samples]:
        """The plan's draws for one step: context sets end to end, targets and references."""
        draws = [self._plan.draw(step, slot) for slot in self.slots(step)]
        # One read a slot: all its samples come from the same shard.
        reads = [
            self._reader.take(
                self._seen[d.row], "model", np.concatenate([d.context, d.targets, d.references])
            )
            for d in draws
        ]
        parts = [
            np.split(r, [len(d.context), len(d.context) + len(d.targets)])
            for r, d in zip(reads, draws, strict=True)
        ]
        context, targets, references = zip(*parts, strict=True)
        return draws, np.concatenate(context), np.stack(targets), np.stack(references)


def batches(dataset: StepBatches, start: int, stop: int, workers: int) -> Iterator[Batch]:
    """The batches of steps `start` to `stop`, in order, made ahead by `workers` processes.

    Workers share the steps round robin and the loader puts them back in order, so the number of
    workers changes nothing but speed. Workers ignore the signals that ask a rank to stop.
    """
    if workers == 0:
        return (dataset[step] for step in range(start, stop))
    loader = DataLoader(
        _Told(dataset),
        batch_size=None,
        sampler=range(start, stop),
        num_workers=workers,
        prefetch_factor=4,
        collate_fn=_arrays,  # pyright: ignore[reportArgumentType]
        worker_init_fn=ignore_signals,
    )
    stream = iter(loader)
    processes = stream._workers  # pyright: ignore[reportAttributeAccessIssue]
    for worker in processes:
        # Torch ends one that is at work by the very signal that they are deaf to.
        worker.terminate = worker.kill
    watch_workers([worker.pid for worker in processes], weakref.ref(stream))
    # An unforeseen error keeps the stream alive to the end, where Python sends its workers a TERM
    # and waits; deaf to it, they would be waited for without end.
    atexit.register(_end_workers, weakref.ref(stream))
    return map(_batch, stream)


class _Told(Dataset["Batch | SnoError"]):
    """An error as a value: torch would hand on a worker's traceback as the error's one line.

    Args:
        dataset: The batches.
    """

    def __init__(self, dataset: StepBatches) -> None:
        self._dataset = dataset

    def __getitem__(self, step: int) -> Batch | SnoError:
        try:
            return self._dataset[step]
        except SnoError as error:
            return error


def _end_workers(stream: Callable[[], Any]) -> None:
    if (found := stream()) is not None:
        found._shutdown_workers()


# Each tensor would come through shared memory with a handshake of its own, eight a batch. Arrays
# come as plain bytes, in a third of the time at these sizes, and need no /dev/shm, which containers
# keep small.
def _arrays(batch: Batch | SnoError) -> dict[str, NDArray[np.generic]] | SnoError:
    if isinstance(batch, SnoError):
        return batch
    return {field.name: getattr(batch, field.name).numpy() for field in fields(batch)}


def _batch(arrays: Mapping[str, NDArray[np.generic]] | SnoError) -> Batch:
    if isinstance(arrays, SnoError):
        raise arrays
    return Batch(**{name: torch.from_numpy(array) for name, array in arrays.items()})
