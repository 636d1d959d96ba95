"""A closed-form base beneath the score network: updates to the same held-out denoising loss.

Each run is made by the command that a user types, on one thread, with and without `model.base`,
over several seeds; every few updates a checkpoint is kept. Of each the denoising loss is taken on
distributions that training never met, with contexts and targets from disjoint samples and the same
noise for all, and on images the accuracy of samples. Both runs of a seed meet the same batches and
train the same autoencoder, whose gradient the score has no share of; while it moves, losses of two
steps are of different latents, so they are compared from where it stands still. Steps saved: the
updates at which each run first was where the plain one is after a half, three quarters and all of
its updates, by straight lines between checkpoints, each the mean of itself and its neighbours.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import finish, machine
from sno_dist.config.load import load_config
from sno_dist.diffusion.objective import weights
from sno_dist.diffusion.schedule import like
from sno_dist.evaluation.training_log import read_log
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime.rng import generator
from sno_dist.shards.manifest import Manifest, open_manifest
from sno_dist.shards.reader import Reader

LEVELS = np.exp(-0.6 + 1.4 * np.array([-1.6, -1.0, -0.6, -0.2, 0.2, 0.6, 1.0, 1.6]))
"""sigma / alpha: over the law by which training draws them by default."""
TARGETS = 64
BASES = ("none", "gaussian")


@dataclass(frozen=True, kw_only=True)
class Data:
    """A population and the run on it.

    Args:
        config: The file.
        steps: Updates.
        every: Updates between two checkpoints.
        contexts: Samples of a context set, where the loss is taken.
        rest: Updates after which the latent stands still.
        overrides: What differs from the file.
    """

    config: str
    steps: int
    every: int
    contexts: Sequence[int]
    rest: int = 0
    overrides: Sequence[str] = ()


POPULATIONS = {
    "digits": Data(
        config="configs/digits.yaml",
        steps=600,
        every=50,
        contexts=(1, 32),
        rest=150,
        overrides=("training.probe.every=50", "training.autoencoder_end=0.25"),
    ),
    # No autoencoder: what a context set's mean and deviations say is of the data themselves.
    "pixels": Data(
        config="configs/digits.yaml",
        steps=600,
        every=25,
        contexts=(1, 32),
        overrides=(
            "training.probe.every=25",
            "model.autoencoder={kind: identity}",
            "model.network={kind: scorenet, width: 512, levels: 3}",
            "model.likelihood=gaussian",
        ),
    ),
    # Contexts of a fixed embedding tell the base alone.
    "lattice": Data(
        config="configs/gmm2d.yaml",
        steps=600,
        every=50,
        contexts=(400,),
        overrides=("training.context=[400,400]", "shards.source.seen=400"),
    ),
}


def lines(work: Path, name: str, seed: int, base: str) -> list[str]:
    """The command line of a run, without the command."""
    data = POPULATIONS[name]
    return [
        f"seed={seed}",
        f"run={work / f'{name}-{base}-{seed}'}",
        f"shards.path={work / f'{name}-shards'}",
        f"model.base={base}",
        f"training.steps={data.steps}",
        f"training.save_every={data.every}",
        "training.keep=1000",
        "training.picture_every=1000000",
        "training.workers=0",
        *data.overrides,
    ]


def run(work: Path, name: str, seed: int, base: str) -> list[dict[str, float]]:
    """Train, or find trained; the held-out loss of every checkpoint."""
    data, overrides = POPULATIONS[name], lines(work, name, seed, base)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (work / f"{name}-{base}-{seed}.log").open("a") as log:
        for stage in ("fit-embedding", "train"):
            command = [sys.executable, "-m", "sno_dist", stage, "-c", data.config, *overrides]
            subprocess.run(command, check=True, stdout=log, stderr=log, env=environment)
    manifest = open_manifest(load_config(Path(data.config), overrides))
    folder = work / f"{name}-{base}-{seed}/training"
    return [losses(path, manifest, data.contexts) for path in sorted(folder.glob("step-*"))]


def losses(path: Path, manifest: Manifest, contexts: Sequence[int]) -> dict[str, float]:
    """Step, and E (1 + r^2) |sigma s + eps|^2 per entry of the latent at each size of context."""
    operator, reader = ScoreNeuralOperator.from_pretrained(path), Reader(manifest)
    found = {"step": float(path.name.removeprefix("step-"))}
    for size in contexts:
        values = [_loss(operator, reader, index, size) for index in range(len(_unseen(manifest)))]
        found[f"k{size}"] = float(np.mean(values))
    return found


def _unseen(manifest: Manifest) -> Sequence[Any]:
    return manifest.split("unseen")[:30]


@torch.no_grad()
def _loss(operator: ScoreNeuralOperator, reader: Reader, index: int, size: int) -> float:
    entry = _unseen(reader.manifest)[index]
    source = generator(0, "held out", entry.name)
    context = reader.take(entry, "model", source.choice(entry.count("model"), size, False))
    targets = reader.take(entry, "reference", np.arange(TARGETS))
    z = operator.encode(torch.from_numpy(targets)).repeat(len(LEVELS), 1)
    noise = torch.from_numpy(source.standard_normal(z.shape)).float()
    schedule = operator.schedule
    t = schedule.time(torch.from_numpy(LEVELS).float().repeat_interleave(TARGETS))
    x = like(schedule.alpha(t), z) * z + like(schedule.sigma(t), z) * noise
    u = operator.embed(torch.from_numpy(context)).expand(len(z), -1)
    miss = (operator.score_model(u, x, t) - noise).square().mean(1)
    return float((weights(t, schedule, "edm") * miss).mean())


def reached(curve: Sequence[dict[str, float]], key: str, goal: float) -> float | None:
    """Updates at which a curve first comes down to a loss; none: it does not."""
    if curve[0][key] <= goal:
        return curve[0]["step"]
    for before, after in pairwise(curve):
        if after[key] <= goal:
            share = (before[key] - goal) / (before[key] - after[key])
            return before["step"] + share * (after["step"] - before["step"])
    return None


def smoothed(curve: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Each checkpoint's losses as the mean of its own and its neighbours'."""
    found = []
    for place, point in enumerate(curve):
        near = curve[max(0, place - 1) : place + 2]
        means = {key: float(np.mean([own[key] for own in near])) for key in point}
        found.append(means | {"step": point["step"]})
    return found


def errors(work: Path, name: str, seed: int, base: str) -> list[dict[str, float]]:
    """The probe's curve of a run: step, and shares of samples that the judge names wrongly."""
    learning = read_log(work / f"{name}-{base}-{seed}").learning
    if learning is None:
        return []
    return [
        {"step": float(step)}
        | {f"error_{key}": 1 - values[place] for key, values in learning.accuracies.items()}
        for place, step in enumerate(learning.steps)
    ]


def compare(plain: Sequence[dict[str, float]], other: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Updates of both to the losses that the plain run has after shares of its updates."""
    found: dict[str, Any] = {}
    plain, other = smoothed(plain), smoothed(other)
    for key in plain[0].keys() - {"step"}:
        found[key] = {}
        for share in (0.5, 0.75, 1.0):
            point = next(p for p in plain if p["step"] >= share * plain[-1]["step"])
            first, own = (reached(curve, key, point[key]) for curve in (plain, other))
            assert first is not None
            found[key][f"{share:g}"] = {
                "loss": point[key],
                "steps": first,
                "steps_with_base": own,
                "ratio": None if own is None else own / first,
            }
        found[key]["at the end"] = {"plain": plain[-1][key], "with base": other[-1][key]}
    return found


def at_rest(curve: Sequence[dict[str, float]], data: Data) -> list[dict[str, float]]:
    """The part of a curve where losses are of one latent."""
    return [point for point in curve if point["step"] >= data.rest]


def main() -> None:
    """Run what is missing, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/residual-campaign"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", nargs="+", default=list(POPULATIONS), choices=POPULATIONS)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    for name in arguments.data:
        shards = [f"shards.path={arguments.work / f'{name}-shards'}", *POPULATIONS[name].overrides]
        command = [sys.executable, "-m", "sno_dist", "build-shards", "-c", POPULATIONS[name].config]
        subprocess.run([*command, *shards], check=True)
    jobs = [
        (name, seed, base) for name in arguments.data for seed in arguments.seeds for base in BASES
    ]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        curves = dict(zip(jobs, pool.map(lambda job: run(arguments.work, *job), jobs), strict=True))
    probes = {job: errors(arguments.work, *job) for job in jobs}
    result: dict[str, Any] = {"benchmark": "residual", "machine": machine(), "levels": list(LEVELS)}
    for name in arguments.data:
        data = POPULATIONS[name]
        result[name] = {
            "config": data.config,
            "overrides": list(data.overrides),
            "curves": {
                f"{base}-{seed}": curves[name, seed, base]
                for base in BASES
                for seed in arguments.seeds
            },
            "probes": {
                f"{base}-{seed}": probes[name, seed, base]
                for base in BASES
                for seed in arguments.seeds
            },
            "seeds": {
                str(seed): {
                    key: steps
                    for curve in (curves, probes)
                    if curve[name, seed, "none"]
                    for key, steps in compare(
                        *(at_rest(curve[name, seed, base], data) for base in BASES)
                    ).items()
                }
                for seed in arguments.seeds
            },
        }
    finish(result, arguments.out)


if __name__ == "__main__":
    main()
