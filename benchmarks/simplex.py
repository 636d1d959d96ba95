"""Diffusion on the simplex by a change of variables, and the objective that goes with it.

Sampling: a score learned in log-ratio coordinates x of a Dirichlet mixture, and the exact one, take
steps in y, on the simplex itself. At each noise level the paths are compared with real samples of
the noised law by the permutation test of MMD^2; so are paths with an Ito term left out, and, for
what steps of that length cost by themselves, paths whose steps are in x. Steps: how many of them
leave the simplex, by their number. Matching: the parameters of laws on simplices and of positive
numbers, by generalised and by plain sliced score matching in growing dimension.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import chi2
from torch import Tensor, nn

from benchmarks import finish, machine
from sno_dist.diffusion.change import ItoTerm, pull_log_density, reverse_step
from sno_dist.diffusion.maps.affine import Affine
from sno_dist.diffusion.maps.elementwise import exponential
from sno_dist.diffusion.maps.map import Composition, Map
from sno_dist.diffusion.maps.simplex import isometric_log_ratio
from sno_dist.diffusion.matching import ScoreOf, generalised_probed, sliced
from sno_dist.diffusion.objective import times, weights
from sno_dist.diffusion.schedule import VariancePreserving
from sno_dist.diffusion.solvers import START, ScoreAt
from sno_dist.embedding.kernels import Gaussian, WeightedSum
from sno_dist.embedding.pairs import median_bandwidth
from sno_dist.evaluation.mmd import unbiased
from sno_dist.evaluation.permutation import permutation_p_value
from sno_dist.nn.layers import Fourier, mlp
from sno_dist.runtime.rng import generator
from sno_dist.score.preconditioned import PreconditionedScore

CONCENTRATIONS = ((12.0, 3.0, 3.0), (3.0, 12.0, 3.0), (4.0, 4.0, 16.0))
TIMES = (0.8, 0.6, 0.4, 0.25, 0.12, 0.04, 0.01, START)
"""At which paths are compared with the noised law."""

SIZE, PERMUTATIONS, CHANCE = 1000, 199, 0.05
STRIDES = {0.0: 0, 0.1: 1, 0.2: 2, 0.4: 4}
"""Noise's width, in the law's -> from there on, each n-th node of the grid; 0: Gauss and Hermite's
rule instead."""

TERMS: tuple[ItoTerm, ...] = ("drift", "divergence", "volume")
GOALS = {"in_y_passes": True, "without_any_term_passes": False}
VP = VariancePreserving()


# -------------------------------------------------------------------------------- the law


class DirichletMixture:
    """Equal parts of Dirichlet laws on the 2-simplex, and the exact score of its noised log-ratios.

    The coordinates x are isometric log-ratios, shifted and turned to mean 0 and covariance 1.
    """

    def __init__(self) -> None:
        self.concentrations = torch.tensor(CONCENTRATIONS, dtype=torch.float64)
        ratios = isometric_log_ratio(2)
        rows = ratios.inverse(self._shares(200_000, np.random.default_rng(0)))
        root = torch.linalg.cholesky(torch.cov(rows.T))
        self.affine = Affine(root, rows.mean(0))
        self.phi = Composition(self.affine, ratios)
        self.axis = torch.linspace(-6, 6, 181, dtype=torch.float64)
        grid = torch.cartesian_prod(self.axis, self.axis)
        self.masses = self.log_density(grid).exp().reshape(len(self.axis), -1)
        nodes, weights = np.polynomial.hermite_e.hermegauss(6)
        self.nodes = torch.cartesian_prod(*[torch.from_numpy(nodes)] * 2)
        self.weights = torch.cartesian_prod(*[torch.from_numpy(weights)] * 2).prod(1)

    def draw(self, count: int, source: np.random.Generator) -> Tensor:
        """(count, 2) coordinates x."""
        return self.phi.inverse(self._shares(count, source))

    def noised(self, count: int, t: Tensor, source: np.random.Generator) -> Tensor:
        """(count, 2) samples of the noised law, as points of the simplex."""
        noise = torch.from_numpy(source.standard_normal((count, 2)))
        x = VP.alpha(t) * self.draw(count, source) + VP.sigma(t) * noise
        return self.phi.forward(x)

    def log_density(self, x: Tensor) -> Tensor:
        """Ln p_0(x), (N,)."""
        shares = isometric_log_ratio(2).shares(self.affine.forward(x))
        own = self.concentrations
        sizes = torch.lgamma(own).sum(1) - torch.lgamma(own.sum(1)) + np.log(len(own))
        logs = (shares.log() @ (own - 1).T - sizes).logsumexp(1)
        return pull_log_density(self.phi, x, logs)

    def score(self, x: Tensor, t: Tensor) -> Tensor:
        """The noised law's score by quadrature; all times are the same."""
        width = float(VP.sigma(t[0]) / VP.alpha(t[0]))
        return self.score_by(max(n for low, n in STRIDES.items() if width >= low), x, t)

    def score_by(self, stride: int, x: Tensor, t: Tensor) -> Tensor:
        """By Gauss and Hermite's rule about each x, or by the trapezoid rule over the law.

        Equation: E[x_0 | x] with weights p_0(x_0) N(x; alpha x_0, sigma^2); s = (alpha E - x) /
        sigma^2. The first rule is for noise that is narrower than the law, the second for noise
        that is wider than the grid.
        """
        alpha, sigma = VP.alpha(t[0]), VP.sigma(t[0])
        if not stride:
            points = (x[:, None] + sigma * self.nodes) / alpha
            logs = self.log_density(points.flatten(0, 1)).reshape(len(x), -1) + self.weights.log()
            return logs.softmax(1) @ self.nodes / sigma
        axis, masses = self.axis[::stride], self.masses[::stride, ::stride]
        gaps = -0.5 * ((x[:, :, None] - alpha * axis) / sigma).square()
        first, second = (gaps - gaps.amax(2, keepdim=True)).exp().unbind(1)
        across = (first @ masses) * second
        total = across.sum(1)
        means = [((first * axis) @ masses * second).sum(1), across @ axis]
        return (alpha * torch.stack(means, 1) / total[:, None] - x) / sigma.square()

    def _shares(self, count: int, source: np.random.Generator) -> Tensor:
        chosen = np.array(CONCENTRATIONS)[source.integers(len(CONCENTRATIONS), size=count)]
        parts = source.standard_gamma(chosen)
        return torch.from_numpy(parts[:, :-1] / parts.sum(1, keepdims=True))


def quadrature_error(law: DirichletMixture) -> float:
    """The largest difference between two rules where one takes over from the other."""
    x, found = law.draw(2000, np.random.default_rng(1)), []
    for (_, before), (width, after) in pairwise(STRIDES.items()):
        t = VP.time(torch.tensor([width], dtype=torch.float64))
        gap = law.score_by(before, x, t) - law.score_by(after, x, t)
        found.append(float(gap.abs().max()))
    return max(found)


class Network(nn.Module):
    """A perceptron of x and of waves of the noise coordinate."""

    def __init__(self) -> None:
        super().__init__()
        self.waves = Fourier(16, 0.2)
        self.layers = mlp(2 + 16, 96, 3, 2, nn.SiLU)

    def forward(self, u: Tensor, x: Tensor, c: Tensor) -> Tensor:
        """As `PreconditionedScore` calls it; there is one law, and no u."""
        del u
        return self.layers(torch.cat([x, self.waves(c)], 1))


def trained(law: DirichletMixture, seed: int, steps: int) -> ScoreAt:
    """A network that learned the score in x by denoising, from new samples at every step."""
    torch.manual_seed(seed)
    source = np.random.default_rng(seed)
    model = PreconditionedScore(Network(), VP, "edm")
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    slower = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        clean = law.draw(1024, source).float()
        noise = torch.randn_like(clean)
        t = times(torch.rand(len(clean)), VP, "lognormal", -1.5, 1.2)
        x = VP.alpha(t)[:, None] * clean + VP.sigma(t)[:, None] * noise
        errors = (model(clean, x, t) - noise).square().sum(1)
        loss = (weights(t, VP, "edm") * errors).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        slower.step()
    return lambda x, t: model.score(x, x, t)


def relative_error(law: DirichletMixture, score: ScoreAt) -> list[float]:
    """E|s - s_exact|^2 / E|s_exact|^2 at the levels that are compared."""
    found = []
    for at in TIMES:
        t = torch.tensor(at, dtype=torch.float64)
        x = law.phi.inverse(law.noised(4000, t, np.random.default_rng(2)))
        exact, own = law.score(x, t.expand(len(x))), score(x, t.expand(len(x)))
        found.append(float((own - exact).square().sum() / exact.square().sum()))
    return found


# ------------------------------------------------------------------------------- sampling


class WithoutAxis(Composition):
    """The same map, but for the second derivative along one axis of x in its Laplacian."""

    def __init__(self, phi: Map, axis: int) -> None:
        super().__init__(phi)
        self.axis = axis

    def laplacian(self, x: Tensor) -> Tensor:
        """One term short."""
        along = torch.eye(2).to(x)[self.axis].expand(len(x), 1, -1)
        return super().laplacian(x) - self.curvature(x, along)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to step.

    Args:
        phi: The map in whose image the steps are taken.
        end: What comes after, to the simplex.
        omit: The Ito terms that are left out.
    """

    phi: Map
    end: Map
    omit: Collection[ItoTerm] = ()


def ways(law: DirichletMixture) -> dict[str, Way]:
    """Steps in x, steps in y, and steps in y that lack something."""
    same = Composition()
    found = {"in_x": Way(phi=same, end=law.phi), "in_y": Way(phi=law.phi, end=same)}
    for term in TERMS:
        found[f"without_{term}"] = Way(phi=law.phi, end=same, omit=(term,))
    found["without_all_three"] = Way(phi=law.phi, end=same, omit=TERMS)
    for axis in (0, 1):
        found[f"without_axis_{axis}"] = Way(phi=WithoutAxis(law.phi, axis), end=same)
    return found


def paths(way: Way, score: ScoreAt, seeds: int, steps: int) -> tuple[dict[float, Tensor], Tensor]:
    """Samples at about each time of TIMES, and how often each path would have left the simplex.

    SIZE paths for each seed, in this order, of one stream of noise; it is the same for every way.
    """
    sources = [generator(seed, "sample", "simplex") for seed in range(seeds)]

    def noise() -> Tensor:
        return torch.cat([torch.from_numpy(own.standard_normal((SIZE, 2))) for own in sources])

    # Even in sqrt(B): g^2 dt, which Ito's terms go with, then falls to nought with the noise.
    first, last = VP.integral(torch.tensor([1.0, START], dtype=torch.float64)).sqrt().tolist()
    grid = VP.inverse(torch.linspace(first, last, steps + 1, dtype=torch.float64).square())
    stops = {int((grid - at).abs().argmin()) for at in TIMES}
    x = noise()
    left, found = torch.zeros(len(x)), {}
    for i in range(steps):
        in_y, in_x = reverse_step(
            way.phi, score, VP, x, grid[i], grid[i + 1], noise(), omit=way.omit
        )
        inside = way.phi.contains(in_y)
        left += ~inside
        x = torch.where(inside[:, None], way.phi.inverse(in_y), in_x)
        if i + 1 in stops:
            found[float(grid[i + 1])] = way.end.forward(way.phi.forward(x))
    return found, left


def tested(law: DirichletMixture, found: dict[float, Tensor], seeds: int) -> dict[str, Any]:
    """P-values of each seed's share of the samples at each level, and what follows from them."""
    p_values, gaps = np.zeros((seeds, len(found))), np.zeros((seeds, len(found)))
    for level, (t, samples) in enumerate(found.items()):
        for seed, own in enumerate(samples.chunk(seeds)):
            source = generator(seed, "permutation", "simplex", level)
            real, other = (law.noised(SIZE, torch.tensor(t).double(), source) for _ in range(2))
            # Of samples that the test does not see, or it would not be exact.
            width = median_bandwidth(other)
            kernel = WeightedSum(tuple(Gaussian(width / n) for n in (1, 2, 4)), (1.0, 1.0, 1.0))
            sets = own.numpy(), real.numpy(), kernel
            p_values[seed, level] = permutation_p_value(*sets, PERMUTATIONS, source)
            gaps[seed, level] = unbiased(*sets)
    # Seeds are independent and so combine (Fisher); the levels are a family (Bonferroni).
    combined = chi2.sf(-2 * np.log(p_values).sum(0), 2 * seeds)
    return {
        "seeds": seeds,
        "p_values": p_values.tolist(),
        "mmd": gaps.mean(0).tolist(),
        "rejected": float((p_values <= CHANCE).mean()),
        "seeds_rejected_by_level": (p_values <= CHANCE).sum(0).tolist(),
        "p_by_level": combined.tolist(),
        "passes": bool(combined.min() * len(combined) > CHANCE),
    }


@torch.no_grad()
def sampling(
    law: DirichletMixture, score: ScoreAt, seeds: int, wrong: int, steps: int
) -> dict[str, Any]:
    """Every way, with one score; those that lack something from fewer seeds."""
    result = {}
    for name, way in ways(law).items():
        count, start = wrong if name.startswith("without") else seeds, time.perf_counter()
        found, _ = paths(way, score, count, steps)
        result[name] = tested(law, found, count)
        told = f"{result[name]['rejected']:.3f} rejected, passes: {result[name]['passes']}"
        print(f"{name}: {told}, {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return result


def met(part: dict[str, Any]) -> dict[str, bool]:
    """Which goals were met."""
    lacking = [own["passes"] for name, own in part.items() if name.startswith("without")]
    found = {"in_y_passes": part["in_y"]["passes"], "without_any_term_passes": any(lacking)}
    return {goal: found[goal] == wanted for goal, wanted in GOALS.items()}


def real(law: DirichletMixture, seeds: int) -> dict[str, Any]:
    """Other real samples in the place of paths: what a perfect sampler scores."""
    source, found = np.random.default_rng(5), {}
    for at in TIMES:
        found[at] = law.noised(seeds * SIZE, torch.tensor(at, dtype=torch.float64), source)
    return tested(law, found, seeds)


@torch.no_grad()
def by_steps(law: DirichletMixture, counts: Sequence[int], seeds: int) -> list[dict[str, Any]]:
    """Steps in x and in y, few and many, with the exact score."""
    rows = []
    for steps in counts:
        row: dict[str, Any] = {"steps": steps}
        for name in ("in_x", "in_y"):
            way = ways(law)[name]
            found, left = paths(way, law.score, seeds, steps)
            last = list(found)[-1]
            row[name] = tested(law, {last: found[last]}, seeds)
        row["steps_that_leave"] = float(left.mean()) / steps
        row["paths_that_leave"] = float((left > 0).double().mean())
        rows.append(row)
    return rows


# ------------------------------------------------------------------------------- matching


@dataclass(frozen=True, kw_only=True)
class Family:
    """Laws whose score is linear in their parameters.

    Args:
        draw: (n, d) samples.
        score: The score of given parameters.
        truth: The parameters.
        field: B(y) e, which vanishes at the edge of the support.
    """

    draw: Callable[[int, np.random.Generator], Tensor]
    score: Callable[[Tensor], ScoreOf]
    truth: Tensor
    field: Callable[[Tensor, Tensor], Tensor]


def dirichlet(dims: int, low: float, high: float) -> Family:
    """A Dirichlet law of concentrations from `low` to `high`: the parameters are these less 1."""
    concentrations = torch.linspace(low, high, dims + 1, dtype=torch.float64)
    phi = isometric_log_ratio(dims)

    def draw(count: int, source: np.random.Generator) -> Tensor:
        return torch.from_numpy(source.dirichlet(concentrations.numpy(), count)[:, :-1])

    def score(theta: Tensor) -> ScoreOf:
        return lambda y: theta[:-1] / y - theta[-1] / (1 - y.sum(1, keepdim=True))

    def field(y: Tensor, e: Tensor) -> Tensor:
        return phi.jvp(phi.inverse(y), e)

    return Family(draw=draw, score=score, truth=concentrations - 1, field=field)


def log_normal(dims: int) -> Family:
    """Of y = exp(z), z Gaussian of tridiagonal precision P and mean m: entries of P, and P m."""
    main = torch.full((dims,), 1.5, dtype=torch.float64)
    beside = torch.full((dims - 1,), -0.5, dtype=torch.float64)
    phi = exponential()

    def precision(theta: Tensor) -> Tensor:
        own, next_to, _ = theta.split([dims, dims - 1, dims])
        return own.diag() + next_to.diag(1) + next_to.diag(-1)

    truth = torch.cat([main, beside, torch.zeros(dims, dtype=torch.float64)])
    root = torch.linalg.cholesky(precision(truth).inverse())

    def draw(count: int, source: np.random.Generator) -> Tensor:
        return (torch.from_numpy(source.standard_normal((count, dims))) @ root.T).exp()

    def score(theta: Tensor) -> ScoreOf:
        return lambda y: -(1 + y.log() @ precision(theta) - theta[-dims:]) / y

    def field(y: Tensor, e: Tensor) -> Tensor:
        return phi.jvp(phi.inverse(y), e)

    return Family(draw=draw, score=score, truth=truth, field=field)


def minimiser(objective: Callable[[Tensor], Tensor], entries: int) -> Tensor:
    """Of a quadratic objective: one Newton step from 0."""
    start = torch.zeros(entries, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(objective(start), start)
    hessian = torch.autograd.functional.hessian(objective, start.detach())
    assert isinstance(hessian, Tensor)
    return -torch.linalg.solve(hessian, slope)


def fit_errors(family: Family, count: int, seed: int) -> dict[str, float]:
    """|theta - truth| / |truth| of both objectives, from the same samples and probes."""
    source = np.random.default_rng([seed, family.truth.shape[0]])
    y = family.draw(count, source)
    probe = torch.from_numpy(source.choice([-1.0, 1.0], y.shape))
    objectives = {
        "sliced": lambda theta: sliced(family.score(theta), y, probe).mean(),
        "generalised": lambda theta: generalised_probed(
            family.score(theta), y, family.field, probe
        ).mean(),
    }
    size = family.truth.norm()
    return {
        name: float((minimiser(objective, len(family.truth)) - family.truth).norm() / size)
        for name, objective in objectives.items()
    }


def matching(dims: Sequence[int], count: int, seeds: int) -> list[dict[str, Any]]:
    """Both objectives on every family in growing dimension."""
    rows = []
    for d in dims:
        families = {
            "dirichlet, concentrations 0.5 to 2": dirichlet(d, 0.5, 2.0),
            "dirichlet, concentrations 3 to 6": dirichlet(d, 3.0, 6.0),
            "log-normal": log_normal(d),
        }
        for name, family in families.items():
            errors = [fit_errors(family, count, seed) for seed in range(seeds)]
            row: dict[str, Any] = {"family": name, "dims": d, "samples": count}
            for method in errors[0]:
                values = [found[method] for found in errors]
                row[method] = {"median": float(np.median(values)), "seeds": values}
            rows.append(row)
            medians = {method: round(row[method]["median"], 3) for method in errors[0]}
            print(f"{name}, d = {d}: {medians}", file=sys.stderr)
    return rows


def main() -> None:
    """Measure everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--seeds", type=int, default=20, help="of paths that should pass")
    parser.add_argument("--wrong", type=int, default=5, help="of paths that should not")
    parser.add_argument("--networks", type=int, default=5, help="shared evenly by the seeds")
    parser.add_argument("--steps", type=int, default=400, help="from noise to samples")
    parser.add_argument("--training-steps", type=int, default=6000)
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 25, 50, 100, 200, 400])
    parser.add_argument("--dims", type=int, nargs="+", default=[2, 4, 8, 16, 32])
    arguments = parser.parse_args()
    start, law = time.perf_counter(), DirichletMixture()
    result: dict[str, Any] = {"benchmark": "simplex", "machine": machine(), "goals": GOALS}
    result["concentrations"], result["times"] = CONCENTRATIONS, TIMES
    result["steps"], result["quadrature_error"] = arguments.steps, quadrature_error(law)
    result["matching"] = matching(arguments.dims, 4000, 5)
    result["by_steps"] = by_steps(law, arguments.counts, 2)
    result["real"] = real(law, arguments.seeds)
    sizes = arguments.seeds, arguments.wrong, arguments.steps
    result["exact"] = sampling(law, law.score, *sizes)
    before, networks = time.perf_counter(), arguments.networks
    models = [trained(law, seed, arguments.training_steps) for seed in range(networks)]
    result["training_seconds"] = (time.perf_counter() - before) / networks

    def each(x: Tensor, t: Tensor) -> Tensor:
        shares = zip(models, x.chunk(networks), t.chunk(networks), strict=True)
        return torch.cat([model(own, at) for model, own, at in shares])

    with torch.no_grad():
        result["relative_score_error"] = [relative_error(law, model) for model in models]
    result["trained"] = sampling(law, each, *sizes)
    result["met"] = {part: met(result[part]) for part in ("exact", "trained")}
    result["seconds"] = time.perf_counter() - start
    finish(result, arguments.out)


if __name__ == "__main__":
    main()
