"""The kernel model beside the kernel density estimate whose bandwidth is best on the test set.

On laws in the plane, for each size of a training set and over several seeds: the mean held-out log
density of fits by implicit score matching, likelihood and expectation-maximisation, each without
and the last also with the kernel density estimate mixed in, which is the default; the seconds of a
fit; and whether samples repeat the training set, beside samples of the empirical law's own noised
score. On some seeds a score network is trained too. Both rivals see all training samples, and the
test set chooses the estimate's bandwidth and the network's number of updates, which no method can;
a fit leaves a part out. Then many laws fitted in one call and one after another.
Seconds are the processor's, of one thread, so that what else the machine does counts in none.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import finish, machine
from benchmarks.rivals import SCHEDULE as NETWORK_SCHEDULE
from benchmarks.rivals import best_kernels, log_density, train
from sno_dist.diffusion.gaussian_mixture import GaussianMixture
from sno_dist.diffusion.sampler import Sampler
from sno_dist.diffusion.schedule import VariancePreserving
from sno_dist.score.kernel.model import KernelFit, fit_kernel_models
from sno_dist.score.memorisation import memorisation
from sno_dist.score.preconditioned import PreconditionedScore
from sno_dist.shards.sources.planar import CURVES, FAMILIES, RING, polar

METHODS: dict[str, KernelFit] = {
    "implicit": KernelFit(method="implicit", kernels=False),
    "likelihood": KernelFit(method="likelihood", kernels=False),
    "em": KernelFit(method="em", kernels=False),
    "em_kernels": KernelFit(),
}
MARKS = (1000, 4000, 8000)
"""Updates of the network, of 512 samples each."""

ASKED = 500
"""Test points that tell the network's density, by an ODE for each."""

NODES = 4000
"""Points that a curve is replaced by where its density is computed."""

SCHEDULE = VariancePreserving(low=1e-3)
"""Whose least noise, a 300th of a law's deviation, tells each of 1,000 samples from the others."""


# --------------------------------------------------------------------------------- laws


@dataclass(frozen=True)
class Law:
    """A law in the plane.

    Args:
        draw: A count and a source to samples, (count, 2).
        log_density: (N, 2) points to (N,) nats; none: not known.
    """

    draw: Callable[[int, np.random.Generator], np.ndarray]
    log_density: Callable[[Tensor], Tensor] | None


def curve(name: str, path: Callable[[np.ndarray], np.ndarray], noise: float) -> Law:
    """A curve of even share on [0, 1), (n,) to (n, 2), and Gaussian noise."""
    nodes = torch.from_numpy(path((np.arange(NODES) + 0.5) / NODES))
    exact = GaussianMixture.isotropic(nodes[None], torch.tensor([noise]).double())
    return Law(draw=FAMILIES[name], log_density=lambda x: exact.log_density(x[None])[0])


def checkerboard_density(x: Tensor) -> Tensor:
    """Of the same, -inf on white."""
    cell = torch.floor(2 * (x + 1))
    black = (cell.sum(1) % 2 == 0) & (cell >= 0).all(1) & (cell < 4).all(1)
    return torch.where(black, -math.log(2.0), -math.inf)


def ring() -> Law:
    """Eight Gaussians on a circle."""
    centres, deviation = RING
    exact = GaussianMixture.isotropic(torch.from_numpy(centres)[None], torch.tensor([deviation]))
    return Law(draw=FAMILIES["ring"], log_density=lambda x: exact.log_density(x[None])[0])


def laws() -> dict[str, Law]:
    """All, by name."""
    return {
        **{name: curve(name, *own) for name, own in CURVES.items()},
        "pinwheel": Law(draw=FAMILIES["pinwheel"], log_density=None),
        "checkerboard": Law(draw=FAMILIES["checkerboard"], log_density=checkerboard_density),
        "ring": ring(),
    }


# -------------------------------------------------------------------------------- cells


def sampled(mixture: GaussianMixture, count: int, source: np.random.Generator) -> Tensor:
    """(P, count, 2) without a solver."""
    rows = len(mixture.log_weights)
    uniform = torch.from_numpy(source.random((rows, count)))
    return mixture.sample(
        uniform, torch.from_numpy(source.standard_normal((rows, count, mixture.entries)))
    )


def repeated(train: Tensor, count: int, source: np.random.Generator) -> Tensor:
    """(count, 2) by the reverse diffusion of the training set's own noised score."""
    scale = train.std()
    law = GaussianMixture.isotropic(train[None] / scale, torch.zeros(1).double())

    def score(x: Tensor, t: Tensor) -> Tensor:
        noised = law.noised(SCHEDULE.alpha(t[0]), SCHEDULE.sigma(t[0]))
        return noised.score(x[None])[0]

    drawn = Sampler(steps=32)(
        score, SCHEDULE, lambda: torch.from_numpy(source.standard_normal((count, 2)))
    )
    return scale * drawn


def cell(
    law: Law, size: int, seeds: int, held_out: int, drawn: int, networks: int
) -> dict[str, Any]:
    """All methods on `seeds` training sets of one size of one law, networks on the first few."""
    sources = [np.random.default_rng([size, seed]) for seed in range(seeds)]
    train = [torch.from_numpy(law.draw(size, source)) for source in sources]
    test = torch.stack([torch.from_numpy(law.draw(held_out, source)) for source in sources])
    kernels = [best_kernels(*pair) for pair in zip(train, test, strict=True)]
    row: dict[str, Any] = {
        "size": size,
        "truth": None if law.log_density is None else mean(law.log_density(own) for own in test),
        "bandwidth": [width for width, _ in kernels],
        "kernels": [told for _, told in kernels],
        "methods": {},
    }
    for name, how in METHODS.items():
        start = time.process_time()
        own = [np.random.default_rng([1, size, seed]) for seed in range(seeds)]
        mixture = fit_kernel_models(train, own, how)
        seconds = (time.process_time() - start) / seeds
        told = mixture.log_density(test).mean(1).tolist()
        wins = sum(mine > rival for mine, rival in zip(told, row["kernels"], strict=True))
        samples = sampled(mixture, drawn, np.random.default_rng([2, size]))
        row["methods"][name] = {
            "log_density": told,
            "wins": wins,
            "seconds": seconds,
            **copied(samples, train, test),
        }
    row["network"] = network(train[:networks], test[:networks], drawn)
    row["empirical"] = copied([repeated(own, drawn, sources[0]) for own in train], train, test)
    return row


def network(train_sets: Sequence[Tensor], test: Tensor, drawn: int) -> dict[str, Any]:
    """A score network trained on each set, with as many updates as are best on the test set."""
    told, seconds, updates, samples = [], [], [], []
    for seed, (own, fresh) in enumerate(zip(train_sets, test, strict=True)):
        found = []
        for step, (spent, model) in zip(MARKS, train(own, MARKS, seed), strict=True):
            found.append((float(log_density(model, fresh[:ASKED]).mean()), step, spent, model))
        best, step, spent, model = max(found, key=lambda each: each[0])
        told.append(best)
        updates.append(step)
        seconds.append(spent)
        samples.append(flowed(model, drawn, np.random.default_rng([5, seed])))
    return {
        "log_density": told,
        "updates": updates,
        "seconds": float(np.mean(seconds)),
        **copied(samples, train_sets, test),
    }


def flowed(model: PreconditionedScore, count: int, source: np.random.Generator) -> Tensor:
    """(count, 2) from a trained network."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        with torch.no_grad():
            return model.score(x, x, t)

    def noise() -> Tensor:
        return torch.from_numpy(source.standard_normal((count, 2))).float()

    return Sampler(steps=32)(score, NETWORK_SCHEDULE, noise).double()


def copied(
    samples: Sequence[Tensor] | Tensor, train: Sequence[Tensor], test: Tensor
) -> dict[str, float]:
    """Both measures of memorisation, means over seeds."""
    each = zip(samples, train, test, strict=True)
    found = [asdict(memorisation(own, fitted, fresh)) for own, fitted, fresh in each]
    return {name: float(np.mean([own[name] for own in found])) for name in found[0]}


def mean(parts: Any) -> float:
    """Over all entries of some tensors of one size."""
    return float(torch.stack(list(parts)).mean())


# ----------------------------------------------------------------------------- many laws


def many(count: int, size: int, looped: int) -> dict[str, Any]:
    """`count` rings of Gaussians, turned and stretched, in one call; `looped` one after another."""
    source = np.random.default_rng(3)
    law, sets = ring(), []
    for _ in range(count):
        turn, (a, b) = source.uniform(0, np.pi), source.uniform(0.5, 2, 2)
        basis = polar(np.array([a, b]), np.array([turn, turn + np.pi / 2]))
        sets.append(torch.from_numpy(law.draw(size, source) @ basis))

    def fitted(part: slice) -> tuple[GaussianMixture, float]:
        own = [np.random.default_rng([4, item]) for item in range(count)][part]
        start = time.process_time()
        mixture = fit_kernel_models(sets[part], own, KernelFit(), pooled=1.0)
        return mixture, time.process_time() - start

    together, one_call = fitted(slice(count))
    points = torch.stack(sets[:looped])
    alone = [fitted(slice(item, item + 1)) for item in range(looped)]
    densities = torch.cat(
        [own.log_density(at[None]) for (own, _), at in zip(alone, points, strict=True)]
    )
    first = together.mapped(lambda values: values[:looped])
    loop = sum(seconds for _, seconds in alone)
    return {
        "laws": count,
        "samples": size,
        "seconds_one_call": one_call,
        "looped_laws": looped,
        "seconds_loop": loop,
        "loop_over_one_call_per_law": loop / looped / (one_call / count),
        "largest_difference": float((densities - first.log_density(points)).abs().max()),
    }


# -------------------------------------------------------------------------------- table


def table(cells: Sequence[dict[str, Any]]) -> str:
    """Means over seeds, and in how many of them a method beats the rival."""
    head = f"{'law':<13}{'n':>5}{'truth':>8}{'kernels':>9}"
    names = "".join(f"{name:>20}" for name in METHODS) + f"{'network':>19}"
    lines = [head + names + f"{'copies: em, chance, own':>26}"]
    for row in cells:
        truth = "" if row["truth"] is None else f"{row['truth']:.3f}"
        line = f"{row['law']:<13}{row['size']:>5}{truth:>8}{np.mean(row['kernels']):>9.3f}"
        for own in row["methods"].values():
            told, wins = np.mean(own["log_density"]), f"{own['wins']}/{len(own['log_density'])}"
            line += f"{told:>9.3f} {wins} {own['seconds']:>5.1f}s"
        told, seconds = np.mean(row["network"]["log_density"]), row["network"]["seconds"]
        line += f"{told:>12.3f} {seconds:>5.1f}s"
        em, plain = row["methods"]["em"], row["empirical"]
        copies = f"{em['copies']:.2f}, {em['fresh_copies']:.2f}, {plain['copies']:.2f}"
        lines.append(line + f"{copies:>26}")
    return "\n".join(lines)


def main() -> None:
    """Run all cells, then the many laws."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="+", choices=list(laws()), default=list(laws()))
    parser.add_argument("--samples", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--held-out", type=int, default=3000)
    parser.add_argument("--drawn", type=int, default=1000, help="samples of each fitted model")
    parser.add_argument("--networks", type=int, default=1, help="seeds that train a network too")
    parser.add_argument("--laws", type=int, default=1000)
    parser.add_argument("--looped", type=int, default=1000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cells = []
    for name in arguments.only:
        law = laws()[name]
        for size in arguments.samples:
            sizes = (arguments.seeds, arguments.held_out, arguments.drawn, arguments.networks)
            cells.append({"law": name, **cell(law, size, *sizes)})
            print(table(cells[-1:]), flush=True)
    print(table(cells))
    wins = {name: sum(row["methods"][name]["wins"] for row in cells) for name in METHODS}
    result: dict[str, Any] = {
        "benchmark": "kernel_model",
        "seeds": arguments.seeds,
        "cells": cells,
        "wins": wins,
        "of": len(cells) * arguments.seeds,
        "many": many(arguments.laws, 100, arguments.looped),
        "machine": machine(),
    }
    finish(result, arguments.out)


if __name__ == "__main__":
    main()
