"""Operator-informed score matching beside the exact score, a trained network, and a loop.

In one dimension, a mixture of two Gaussians, and on the torus in two, five Gaussians on a ring:
the error of score and density as eigenfunctions are added, from exact means, from sample means as
they are and shrunk; and a network trained on the same samples, with the seconds of both. On the
lattice family: 1,000 laws fitted in one call and one after another. Errors are E |s - s*|^2 /
E |s*|^2 at points of the noised law, s* the score of the noising that a method models: wrapped
around for the torus, plain for the others. Seconds are the processor's, of one thread, so that what
else the machine does counts in none.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import finish, machine
from benchmarks.rivals import SCHEDULE, best_kernels, log_density, train
from sno_dist.diffusion.axes import Axis, Circle, OrnsteinUhlenbeck
from sno_dist.diffusion.covariance import Spectral
from sno_dist.diffusion.eigenfunctions import Eigenfunctions, Moments, up_to
from sno_dist.diffusion.gaussian_mixture import GaussianMixture
from sno_dist.diffusion.uniform import UniformMixture
from sno_dist.score.oism import Fit, OperatorInformed, series_score
from sno_dist.score.preconditioned import PreconditionedScore
from sno_dist.score.shrinkage import Shrinkage
from sno_dist.shards.sources.gaussian_mixture import SEEN_RULES, laws, lower_corners

VARIANCES = (0.0, 0.0025, 0.02, 0.1, 0.5)
"""Squares of the noise levels of the first two parts."""

PERIOD = 8.0
POINTS = 4000
RULES: tuple[tuple[str, Shrinkage, float], ...] = (
    ("raw", "none", 0.0),
    ("stein", "stein", 0.0),
    ("heat", "heat", 1e-4),
)
Field = Callable[[Tensor, float], Tensor]
"""(P, B, D) points and the square of a level to (P, B, D) scores of P fits of one law."""


# --------------------------------------------------------------------------------- laws


def mixture(weights: Tensor, means: Tensor, covariances: Tensor) -> GaussianMixture:
    """Of (C,), (C, D) and (C, D, D)."""
    values, basis = torch.linalg.eigh(covariances)
    return GaussianMixture(
        log_weights=weights.log()[None],
        centres=means[None, None],
        covariance=Spectral(basis[None, None], values[None, None]),
    )


def wrapped(law: GaussianMixture, period: float | None) -> GaussianMixture:
    """Each component where it is and one period on to all sides, if there is one."""
    if period is None:
        return law
    dims = law.centres.shape[-1]
    ticks = period * torch.arange(-1, 2, dtype=torch.float64)
    turns = torch.cartesian_prod(*[ticks] * dims).reshape(-1, dims)
    return GaussianMixture(
        log_weights=law.log_weights.repeat_interleave(len(turns), 1),
        centres=(law.centres[..., None, :] + turns).flatten(2, 3),
        covariance=law.covariance.mapped(lambda v: v.repeat_interleave(len(turns), 2)),
    )


def noised(law: GaussianMixture, variance: float) -> GaussianMixture:
    """Under variance exploding noise."""
    return law.noised(torch.tensor(1.0), torch.tensor(variance).double().sqrt())


def sampled(law: GaussianMixture, count: int, source: np.random.Generator) -> Tensor:
    """(count, D)."""
    uniform = torch.from_numpy(source.random((1, count)))
    normals = torch.from_numpy(source.standard_normal((1, count, law.entries)))
    return law.sample(uniform, normals)[0]


def two() -> GaussianMixture:
    """The law of the first part."""
    return mixture(
        torch.tensor([0.4, 0.6], dtype=torch.float64),
        torch.tensor([[-1.2], [0.8]], dtype=torch.float64),
        torch.tensor([[[0.35**2]], [[0.45**2]]], dtype=torch.float64),
    )


def ring() -> GaussianMixture:
    """The law of the second: axes .2 and .3, the first at 45 degrees to the radius 1.2."""
    angle = 2 * math.pi / 5 * torch.arange(5, dtype=torch.float64)
    turned = angle + math.pi / 4
    first = torch.stack([turned.cos(), turned.sin()], 1)
    second = torch.stack([-turned.sin(), turned.cos()], 1)
    outer = [side[:, :, None] * side[:, None] for side in (first, second)]
    return mixture(
        torch.full((5,), 0.2, dtype=torch.float64),
        1.2 * torch.stack([angle.cos(), angle.sin()], 1),
        0.2**2 * outer[0] + 0.3**2 * outer[1],
    )


# ------------------------------------------------------------------------------- errors


def errors(
    field: Field, law: GaussianMixture, fits: int, period: float | None
) -> list[list[float]]:
    """Of each variance, the relative error of each fit; nan where there is no figure."""
    found = []
    for variance in VARIANCES:
        x = sampled(noised(law, variance), POINTS, np.random.default_rng(1))
        exact = noised(wrapped(law, period), variance).score(x[None])[0]
        gap = field(x.expand(fits, -1, -1), variance) - exact
        found.append((gap.square().sum((1, 2)) / exact.square().sum()).tolist())
    return found


def closed_form(fit: Fit) -> Field:
    """A fit's score in x, coefficients solved at the very level."""
    axis = fit.model.basis.axis

    def field(x: Tensor, variance: float) -> Tensor:
        level = torch.tensor([variance], dtype=torch.float64).sqrt()
        factor = float(axis.scale(level))
        return factor * fit.model.score(fit.coefficients(axis.clock(level))[:, 0], factor * x)

    return field


def exact_means(basis: Eigenfunctions, law: GaussianMixture) -> Moments:
    """The law's own, by quadrature."""
    line = torch.linspace(-6, 6, 6001 if law.centres.shape[-1] == 1 else 301, dtype=torch.float64)
    x = torch.cartesian_prod(*[line] * law.centres.shape[-1]).reshape(-1, law.centres.shape[-1])
    weight = law.log_density(x[None])[0].softmax(0)
    mean = sum(
        part @ basis(own) for part, own in zip(weight.split(9000), x.split(9000), strict=True)
    )
    assert isinstance(mean, Tensor)
    return Moments(total=mean[None], squares=mean[None].square(), count=torch.ones(1).long())


def medians(table: list[list[float]]) -> list[float | None]:
    """Over fits; None where there is no figure."""
    found = [float(np.median(row)) for row in table]
    return [None if math.isnan(figure) else figure for figure in found]


def growth(
    law: GaussianMixture, axes: Sequence[tuple[Axis, Sequence[int]]], samples: Tensor
) -> list[Any]:
    """Errors as eigenfunctions are added: exact means, and medians over sets of samples."""
    found = []
    for axis, orders in axes:
        period = axis.period if isinstance(axis, Circle) else None
        for order in orders:
            model = OperatorInformed(up_to(axis, law.centres.shape[-1], order))
            moments = exact_means(model.measured, law)
            exact = Fit(model=model, moments=moments, shrinkage="none", ridge=0.0)
            row: dict[str, Any] = {
                "axis": type(axis).__name__,
                "order": order,
                "eigenfunctions": len(model.basis.indices),
                "moments": len(model.measured.indices),
                "exact": medians(errors(closed_form(exact), law, 1, period)),
            }
            lengths = torch.full((len(samples),), samples.shape[1])
            moments = model.measured.moments(samples.flatten(0, 1), lengths)
            for name, shrinkage, ridge in RULES:
                fit = Fit(model=model, moments=moments, shrinkage=shrinkage, ridge=ridge)
                row[name] = medians(errors(closed_form(fit), law, len(samples), period))
            found.append(row)
    return found


# ------------------------------------------------------------------------------ network


def network_field(model: PreconditionedScore) -> Field:
    """Its score; at no noise it has none."""

    def field(x: Tensor, variance: float) -> Tensor:
        if variance == 0:
            return torch.full_like(x, torch.nan)
        t = SCHEDULE.time(torch.full_like(x[0, :, 0], math.sqrt(variance)))
        with torch.no_grad():
            return model.score(x[0], x[0], t)[None]

    return field


# -------------------------------------------------------------------------- comparisons


def compare(
    law: GaussianMixture, order: int, samples: Tensor, marks: Sequence[int]
) -> dict[str, Any]:
    """The closed form beside a network trained on the same samples, set by set."""
    axis = Circle(PERIOD)
    start = time.process_time()
    model = OperatorInformed(up_to(axis, law.centres.shape[-1], order))
    prepared = len(model.measured.indices), time.process_time() - start
    test = sampled(law, 500, np.random.default_rng(2))
    rows = []
    for seed, own in enumerate(samples):
        start = time.process_time()
        moments = model.measured.moments(own, torch.tensor([len(own)]))
        fit = Fit(model=model, moments=moments)
        fit.tabulate(SCHEDULE)
        seconds = time.process_time() - start
        raw = Fit(model=model, moments=moments, shrinkage="none", ridge=1e-4)
        row: dict[str, Any] = {
            "seconds": seconds,
            "errors": medians(errors(closed_form(fit), law, 1, axis.period)),
            "log_density": float(fit.log_density(test[None]).mean()),
            "log_density_raw": float(raw.log_density(test[None]).mean()),
            "log_density_kernel": best_kernels(own, test)[1],
            "network": [],
        }
        for step, (spent, network) in zip(marks, train(own, marks, seed), strict=True):
            field = network_field(network)
            row["network"].append(
                {"step": step, "seconds": spent, "errors": medians(errors(field, law, 1, None))}
            )
            if step == max(marks):
                row["log_density_network"] = float(log_density(network, test).mean())
        rows.append(row)
    return {
        "order": order,
        "samples": samples.shape[1],
        "log_density_exact": float(law.log_density(test[None]).mean()),
        "moments": prepared[0],
        "seconds_once_for_all_laws": prepared[1],
        "sets": rows,
        **ratios(rows),
    }


def ratios(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Seconds of the network over those of the closed form, and how good it is by then.

    Errors are means over the noise levels above 0.
    """

    def mean(errors: Sequence[float]) -> float:
        return float(np.mean(errors[1:]))

    reached, best = [], []
    for row in rows:
        best.append(min(mean(m["errors"]) for m in row["network"]))
        spent = [m["seconds"] for m in row["network"] if mean(m["errors"]) <= mean(row["errors"])]
        reached.append(spent[0] / row["seconds"] if spent else None)
    whole = [row["network"][-1]["seconds"] / row["seconds"] for row in rows]
    return {
        "error": float(np.mean([mean(row["errors"]) for row in rows])),
        "network_error": float(np.mean([mean(row["network"][-1]["errors"]) for row in rows])),
        # At the best of its marks, which only the exact score can tell.
        "network_best_error": float(np.mean(best)),
        "network_seconds_over_ours": float(np.mean(whole)),
        # None: the network's error was above the closed form's to the end.
        "network_seconds_to_our_error_over_ours": reached,
    }


# ------------------------------------------------------------------------- many at once

BASES: tuple[tuple[Axis, int, float, tuple[float, ...]], ...] = (
    (Circle(12.0), 10, 1.0, (0.25, 0.5, 1.0)),
    (OrnsteinUhlenbeck(), 12, math.sqrt(3), (2.0, 4.0, 8.0)),
)
"""Axis, order, the units of y in cells, noise levels in cells."""

SCORED = 200


@dataclass(frozen=True, kw_only=True)
class Population:
    """Laws of the lattice: (P, 4, 2) lower corners of their cells, (P, n, 2) samples."""

    corners: Tensor
    samples: Tensor


def population(count: int, samples: int) -> Population:
    """Different seen laws."""
    source = np.random.default_rng(0)
    names = [name for pair in SEEN_RULES for name in laws(*pair)]
    chosen = source.choice(names, count, replace=False)
    corners = torch.from_numpy(np.stack([lower_corners(str(name)) for name in chosen]))
    return Population(corners=corners, samples=draw(corners, samples, source))


def draw(corners: Tensor, count: int, source: np.random.Generator) -> Tensor:
    """(P, 4, 2) to (P, count, 2)."""
    cell = torch.from_numpy(source.integers(4, size=(len(corners), count, 1)))
    inside = torch.from_numpy(source.random((len(corners), count, 2)))
    return corners.gather(1, cell.expand(-1, -1, 2)) + inside


def points(corners: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Points of the noised laws, and their exact scores: (P, SCORED, 2) each."""
    source = np.random.default_rng(3)
    noise = torch.from_numpy(source.standard_normal((len(corners), SCORED, 2)))
    x = draw(corners, SCORED, source) + level * noise
    one = torch.ones(SCORED, dtype=torch.float64)
    scores = [
        UniformMixture(low=low, high=low + 1).score(own, one, level * one)
        for low, own in zip(corners, x, strict=True)
    ]
    return x, torch.stack(scores)


def baselines(samples: Tensor, x: Tensor, level: float) -> dict[str, Tensor]:
    """The empirical law's noised score, and that of the law's own Gaussian."""
    empirical = []
    for own, at in zip(samples, x, strict=True):
        shares = (-0.5 * torch.cdist(at, own).square() / level**2).softmax(1)
        empirical.append((shares @ own - at) / level**2)
    mean = samples.mean(1, keepdim=True)
    gap = samples - mean
    spread = gap.mT @ gap / samples.shape[1] + level**2 * torch.eye(2).double()
    gaussian = -torch.linalg.solve(spread, (x - mean).mT).mT
    return {"empirical": torch.stack(empirical), "gaussian": gaussian}


def many(count: int, samples: int, looped: int) -> dict[str, Any]:
    """All laws in one call, `looped` of them one after another, and the errors of all."""
    laws_ = population(count, samples)
    found: dict[str, Any] = {"laws": count, "samples": samples, "bases": [], "levels": {}}
    lengths = torch.full((count,), samples)
    for axis, order, unit, levels in BASES:
        start = time.process_time()
        model = OperatorInformed(up_to(axis, 2, order))
        len(model.measured.indices)
        prepared = time.process_time() - start
        start = time.process_time()
        moments = model.measured.moments(laws_.samples.flatten(0, 1) / unit, lengths)
        averaged = time.process_time() - start
        clocks = axis.clock(torch.tensor(levels, dtype=torch.float64) / unit)
        start = time.process_time()
        coefficients = Fit(model=model, moments=moments).coefficients(clocks)
        batched = time.process_time() - start
        start = time.process_time()
        alone = torch.cat(
            [
                Fit(model=model, moments=part(moments, law)).coefficients(clocks)
                for law in range(looped)
            ]
        )
        one_by_one = time.process_time() - start
        found["bases"].append(
            {
                "axis": type(axis).__name__,
                "order": order,
                "eigenfunctions": len(model.basis.indices),
                "moments": len(model.measured.indices),
                "levels": list(levels),
                "seconds_once": prepared,
                "seconds_moments": averaged,
                "seconds_one_call": batched,
                "looped_laws": looped,
                "seconds_loop": one_by_one,
                "loop_over_one_call_per_law": one_by_one / looped / (batched / count),
                "largest_difference": float((alone - coefficients[:looped]).abs().max()),
            }
        )
        for index, level in enumerate(levels):
            x, exact = points(laws_.corners, level)
            clock = clocks[index]
            factor = float(axis.scale(torch.tensor(level / unit).double())) / unit
            scores = {
                "ours": factor * model.score(coefficients[:, index], factor * x),
                "series": factor * series_score(model.measured, moments.mean, clock, factor * x),
                **baselines(laws_.samples, x, level),
            }
            energy = exact.square().sum((1, 2))
            found["levels"][level] = {
                name: float(((own - exact).square().sum((1, 2)) / energy).mean())
                for name, own in scores.items()
            }
    found["error"] = float(np.mean([own["ours"] for own in found["levels"].values()]))
    return found


def part(moments: Moments, law: int) -> Moments:
    """One law's."""
    own = slice(law, law + 1)
    return Moments(total=moments.total[own], squares=moments.squares[own], count=moments.count[own])


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--sets", type=int, default=3, help="sets of samples in each comparison")
    parser.add_argument("--laws", type=int, default=1000)
    parser.add_argument("--looped", type=int, default=1000)
    parser.add_argument("--marks", type=int, nargs="+", default=[250, 500, 1000, 2000, 4000, 8000])
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    def sets(law: GaussianMixture, count: int, size: int) -> Tensor:
        return torch.stack(
            [sampled(law, size, np.random.default_rng([4, i])) for i in range(count)]
        )

    result: dict[str, Any] = {"benchmark": "oism", "variances": list(VARIANCES)}
    line, plane = two(), ring()
    axes = [(OrnsteinUhlenbeck(), (4, 8, 16, 24)), (Circle(PERIOD), (4, 8, 12, 16, 32))]
    result["line"] = {
        "growth": growth(line, axes, sets(line, 20, 1000)),
        "comparison": compare(line, 16, sets(line, arguments.sets, 1000), arguments.marks),
    }
    torus = [(Circle(PERIOD), (6, 8, 10))]
    result["torus"] = {
        "growth": growth(plane, torus, sets(plane, arguments.sets, 1000)),
        "growth_5000": growth(plane, torus, sets(plane, arguments.sets, 5000)),
        "comparison": compare(plane, 8, sets(plane, arguments.sets, 1000), arguments.marks),
    }
    result["many"] = [many(arguments.laws, n, arguments.looped) for n in (2000, 100)]
    result["machine"] = machine()
    finish(result, arguments.out)


if __name__ == "__main__":
    main()
