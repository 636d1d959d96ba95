"""Samples a second on one core: planned batches of blocks, one sample a record, a plain read.

All read the same 1,024-byte samples from the page cache, in turn, in one process of one thread.
Every batch is another: its context sets and targets are drawn by the plan, as in training.
"""

from __future__ import annotations

import argparse
import io
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset
from numpy.typing import NDArray
from webdataset.writer import TarWriter

from benchmarks import finish, machine
from sno_dist.config.load import load_config
from sno_dist.runtime.world import World
from sno_dist.shards.manifest import Entry, Manifest
from sno_dist.shards.plan import StepPlan
from sno_dist.shards.reader import Reader
from sno_dist.shards.tar import write_shard
from sno_dist.training.loader import StepBatches, make_plan

SHAPE = (1, 32, 32)
LATENT = 512  # entries of the default autoencoder's latent for this shape
GOAL = 50.0

Way = Callable[[range], float]
"""Reads what belongs to some turns; returns samples per second."""


def write_population(root: Path, distributions: int, samples: int, block: int) -> Manifest:
    """Random images as our shards, and the same ones as tars of one sample a record."""
    source = np.random.default_rng(0)
    entries = []
    (root / "single").mkdir()
    for index in range(distributions):
        data = source.integers(0, 256, (samples, *SHAPE), np.uint8)
        shard = write_shard(root, f"blocks/{index:02d}.tar", data, block)
        entries.append(Entry(name=f"{index:02d}", split="seen", roles={"model": [shard]}))
        _write_single(root / "single" / f"{index:02d}.tar", data)
    return Manifest(
        root=str(root),
        population="random",
        domain="image",
        shape=SHAPE,
        dtype="uint8",
        shift=(0.0,),
        scale=(255.0,),
        entries=entries,
    )


def _write_single(path: Path, data: NDArray[np.uint8]) -> None:
    with path.open("wb") as stream:
        writer = TarWriter(stream, encoder=False)
        for index, sample in enumerate(data):
            record = io.BytesIO()
            np.save(record, sample)
            writer.write({"__key__": f"{index:06d}", "npy": record.getvalue()})
        writer.close()


def take(reader: Reader, plan: StepPlan, turns: range) -> float:
    """The reader alone, at indices planned beforehand."""
    entries = reader.manifest.entries
    draws = [plan.draw(step, slot) for step in turns for slot in range(plan.distributions)]
    wanted = [(entries[d.row], np.concatenate([d.context, d.targets])) for d in draws]
    start = time.perf_counter()
    count = sum(len(reader.take(entry, "model", index)) for entry, index in wanted)
    return count / (time.perf_counter() - start)


def planned(loader: StepBatches, turns: range) -> float:
    """Plan, read and lay out every context set and target of a step's batch."""
    start, count = time.perf_counter(), 0
    for step in turns:
        _, context, targets, _ = loader.read(step)
        count += len(context) + targets.shape[0] * targets.shape[1]
    return count / (time.perf_counter() - start)


def batched(loader: StepBatches, turns: range) -> float:
    """The whole batch, with the noise of every target."""
    start, count = time.perf_counter(), 0
    for step in turns:
        batch = loader[step]
        count += int(batch.lengths.sum()) + batch.rows.numel() * batch.targets.shape[1]
    return count / (time.perf_counter() - start)


def library(tars: Sequence[Path], turns: range) -> float:
    """WebDataset as it is commonly used: a sample a record, decoded, in the order of the tar."""
    urls = [str(tars[turn % len(tars)]) for turn in turns]
    start, count = time.perf_counter(), 0
    data = webdataset.WebDataset(urls, shardshuffle=False).decode(
        webdataset.handle_extension("npy", _decode)
    )
    for sample in data:
        count += len(sample["npy"])
    return count / (time.perf_counter() - start)


def _decode(data: bytes) -> NDArray[np.generic]:
    return np.load(io.BytesIO(data), allow_pickle=False)


def plain(shards: Sequence[Path], samples: int, turns: range) -> float:
    """The shards' bytes, whole, into memory that is already there: the bound of the machine."""
    buffer = bytearray(max(path.stat().st_size for path in shards))
    start = time.perf_counter()
    for turn in turns:
        with shards[turn % len(shards)].open("rb", buffering=0) as stream:
            stream.readinto(buffer)
    return len(turns) * samples / (time.perf_counter() - start)


def measure(root: Path, options: argparse.Namespace) -> dict[str, list[float]]:
    """Samples per second of every way, in every repetition; the ways take turns."""
    config = load_config(None, [f"seed={options.seed}"])
    manifest = write_population(root, options.distributions, options.samples, config.shards.block)
    names = [entry.name for entry in manifest.entries]
    loader = StepBatches(config, manifest, World(), LATENT)
    ways: dict[str, tuple[Way, int]] = {
        "take": (partial(take, Reader(manifest), make_plan(config, manifest)), 200),
        "planned": (partial(planned, loader), 200),
        "batched": (partial(batched, loader), 50),
        "library": (partial(library, [root / "single" / f"{name}.tar" for name in names]), 3),
        "plain": (
            partial(plain, [root / "blocks" / f"{n}.tar" for n in names], options.samples),
            20 * options.distributions,
        ),
    }
    for way, _ in ways.values():
        way(range(20))  # opens and hashes every shard, and fills the page cache
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(options.repetitions):
        for name, (way, length) in ways.items():
            rates[name].append(way(range((turn + 1) * length, (turn + 2) * length)))
    return rates


def main() -> None:
    """Measure, print the figures, and say whether the goal is met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--distributions", type=int, default=20)
    parser.add_argument("--samples", type=int, default=2000, help="of each distribution")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rates = measure(Path(folder), options)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratio = medians["planned"] / medians["library"]
    result: dict[str, Any] = {
        "benchmark": "reader",
        "machine": machine(),
        "bytes_per_sample": int(np.prod(SHAPE)),
        "samples_per_second": {name: round(value) for name, value in medians.items()},
        "spread": {name: [round(min(v)), round(max(v))] for name, v in rates.items()},
        "over_library": {
            name: round(medians[name] / medians["library"], 1)
            for name in ("take", "planned", "batched")
        },
        "over_plain": {
            name: round(medians[name] / medians["plain"], 3)
            for name in ("take", "planned", "batched")
        },
        "goal": GOAL,
        "met": ratio >= GOAL,
    }
    finish(result, options.out)


if __name__ == "__main__":
    main()
