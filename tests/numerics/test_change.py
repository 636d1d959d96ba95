"""Scores, densities and reverse processes in other coordinates: closed forms and exact laws."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import cache, partial

import pytest
import torch
from torch import Tensor

from sno_dist.diffusion import solvers
from sno_dist.diffusion.change import (
    ItoTerm,
    euler_maruyama,
    flow_field,
    ito_terms,
    pull_log_density,
    pull_score,
    push_log_density,
    push_score,
    pushed,
    pushed_score,
    reverse_step,
)
from sno_dist.diffusion.maps.affine import Affine
from sno_dist.diffusion.maps.automatic import Automatic
from sno_dist.diffusion.maps.elementwise import exponential
from sno_dist.diffusion.maps.map import Composition, Map
from sno_dist.diffusion.maps.simplex import LogRatio, additive_log_ratio, isometric_log_ratio
from sno_dist.diffusion.ode import integrate
from sno_dist.diffusion.schedule import VariancePreserving
from tests.numerics.gaussians import Gaussian, Mixture

# torch's forward mode loads a part of torch that torch itself has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")

VP = VariancePreserving()
LAW = Mixture(torch.tensor([[1.0, 0.5], [-1.0, 1.0], [0.2, -1.2]]).double(), 0.35)
SCORE = LAW.score(VP)


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(found: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


# ---------------------------------------------------------------------- values of the formula


def twisted(x: Tensor) -> Tensor:
    return torch.stack([x[0] + 0.3 * x[1].sin() + 0.1 * x[0] ** 3, (0.5 * x[1]).exp() + 0.2 * x[0]])


def test_the_score_of_a_gaussian_through_a_twisted_map() -> None:
    phi, x = Automatic(twisted), double(0.5, -0.3)[None]
    root = torch.tensor([[1.0, 0.3], [-0.2, 0.8]], dtype=torch.float64)
    score = -torch.linalg.solve(root @ root.T, x[0] - double(0.2, -0.1))[None]
    close(score, double(-0.2866414278, 0.3109789075)[None], 1e-9)
    close(phi.log_det(x), double(-0.9031022140), 1e-9)
    close(push_score(phi, x, score), double(-0.5359935449, -0.1449250357)[None], 1e-9)


def test_the_score_on_the_simplex() -> None:
    phi, x = additive_log_ratio(2), double(0.3, -0.7)[None]
    found = push_score(phi, x, double(-0.5, 1.1)[None])
    close(phi.forward(x), double(0.4742263522, 0.1744581254)[None], 1e-10)
    close(found, double(1.3912640854, 5.1275140318)[None], 1e-9)
    close(phi.laplacian(x), double(-0.0410132957, 0.0895060575)[None], 1e-10)


MAPS: dict[str, Map] = {
    "twisted": Automatic(twisted),
    "additive": additive_log_ratio(2),
    "isometric": isometric_log_ratio(2),
    "exponential": exponential(),
    "standardised": Composition(
        Affine(torch.tensor([[0.8, 0.1], [0.0, 1.3]]), double(0.2, -0.4)), isometric_log_ratio(2)
    ),
}
NAMED = pytest.mark.parametrize("phi", MAPS.values(), ids=MAPS.keys())


@NAMED
def test_the_score_in_y_is_the_slope_of_the_log_density_in_y(phi: Map) -> None:
    x, t = normals(10, 2), torch.full((10,), 0.3, dtype=torch.float64)
    y = phi.forward(x).detach()
    # d ln q / d y by central differences of an inverted map.
    step, found = 1e-5, pushed_score(phi, SCORE)(y, t)
    for axis in range(2):
        ends = []
        for sign in (1, -1):
            there = phi.inverse(y + sign * step * torch.eye(2)[axis])
            ends.append(push_log_density(phi, there, LAW.log_density(there, VP, t)))
        slope = (ends[0] - ends[1]) / (2 * step)
        torch.testing.assert_close(found[:, axis], slope, rtol=2e-6, atol=1e-6)


@NAMED
def test_pulling_undoes_pushing(phi: Map) -> None:
    x, score, logs = normals(10, 2), normals(10, 2, seed=1), normals(10, seed=2)
    close(pull_score(phi, x, push_score(phi, x, score)), score, 1e-12)
    close(pull_log_density(phi, x, push_log_density(phi, x, logs)), logs, 1e-14)


# ------------------------------------------------------------------------- reverse process


@NAMED
def test_the_drift_in_y_is_andersons(phi: Map) -> None:
    """b - g^2 div(J J') - g^2 J J' s_y, each part from J in y by torch.func."""
    x, t, after = normals(6, 2), double(0.4)[0], double(0.39)[0]
    times = t.expand(6)
    plain = Automatic(lambda point: phi.forward(point[None])[0])
    jacobian = plain.jacobian(x)

    def square(point: Tensor) -> Tensor:
        own = torch.func.jacfwd(plain.function)(point)
        return own @ own.mT

    slopes = torch.func.vmap(torch.func.jacfwd(square))(x)
    spread = torch.einsum("nijk,nkj->ni", slopes, jacobian.inverse())
    in_y = torch.einsum(
        "nij,nj->ni", jacobian @ jacobian.mT, push_score(phi, x, SCORE(x.clone(), times))
    )
    g2 = float(VP.diffusion(t))
    forward = phi.jvp(x, float(VP.drift(t)) * x) + 0.5 * g2 * plain.laplacian(x)
    drift = forward - g2 * spread - g2 * in_y
    y = phi.forward(x)
    found, _ = reverse_step(phi, SCORE, VP, x, t, after, torch.zeros_like(y))
    close((y - found) / float(t - after), drift.detach(), 2e-10)


@NAMED
def test_the_named_terms_add_up_to_itos_lemma_in_reverse(phi: Map) -> None:
    x = normals(10, 2)
    terms = ito_terms(phi, x)
    assert list(terms) == ["drift", "divergence", "volume"]
    close(torch.stack([*terms.values()]).sum(0), -0.5 * phi.laplacian(x), 1e-12)


@pytest.mark.parametrize("omit", ["drift", "divergence", "volume"])
def test_what_is_omitted_is_missing_from_the_step(omit: ItoTerm) -> None:
    phi, x, t, after = MAPS["isometric"], normals(10, 2), double(0.4)[0], double(0.38)[0]
    z = normals(10, 2, seed=1)
    whole, same = reverse_step(phi, SCORE, VP, x, t, after, z)
    less, alike = reverse_step(phi, SCORE, VP, x, t, after, z, omit=[omit])
    close(less - whole, 0.02 * float(VP.diffusion(t)) * ito_terms(phi, x)[omit], 1e-12)
    assert torch.equal(same, alike)


def test_a_step_in_x_is_the_solvers() -> None:
    phi, x, times = MAPS["isometric"], normals(10, 2), double(0.4, 0.38)
    z = normals(10, 2, seed=1)
    _, there = reverse_step(phi, SCORE, VP, x, times[0], times[1], z)
    end = solvers.euler_maruyama(SCORE, VP, x.clone(), times, lambda: z)
    sigma2 = VP.sigma(times[1]).square()
    clean = (there + sigma2 * SCORE(there, times[1].expand(10))) / VP.alpha(times[1])
    close(clean.detach(), end.detach(), 1e-12)


def test_a_gaussian_step_is_taken_in_the_exponentials_coordinates() -> None:
    """y = exp(x), x Brownian: one step has the mean that Ito's lemma has, exp's half variance."""
    flat = VariancePreserving(low=0.0, high=2.0)
    t, after = double(0.5)[0], double(0.4)[0]
    x = double(0.7).expand(1, 1)
    found, _ = reverse_step(
        exponential(), lambda x, _: torch.zeros_like(x), flat, x, t, after, torch.zeros(1, 1)
    )
    # -(f x) dt = 0.1 x / 2, Lap exp = exp, g^2 = 1: exp(x) (1 + 0.05 x + 0.05)
    close(found, x.exp() * (1 + 0.05 * x + 0.05), 1e-14)


class _Wrong(LogRatio):
    """A map whose Laplacian is taken times a factor: 0, Ito's lemma forgotten; -1, its sign."""

    def __init__(self, phi: LogRatio, factor: float) -> None:
        super().__init__(phi.basis)
        self.factor = factor

    def laplacian(self, x: Tensor) -> Tensor:
        return self.factor * super().laplacian(x)


FINEST, PATHS = 512, 400
GRID = torch.linspace(0.6, 0.05, FINEST + 1, dtype=torch.float64)
MOTION = normals(FINEST, PATHS, 2, seed=3)
START = normals(PATHS, 2, seed=4)


def step_of(phi: Map, x: Tensor, i: int, every: int, omit: Collection[ItoTerm] = ()):
    """The step from grid time i, driven by all the motion between it and the next."""
    z = MOTION[i : i + every].sum(0) / every**0.5
    in_y, in_x = reverse_step(phi, SCORE, VP, x, GRID[i], GRID[i + every], z, omit=omit)
    return in_y.detach(), in_x.detach()


@cache
def ends_in_x() -> Tensor:
    """Where the paths end that are stepped in x, by the finest steps."""
    none, x = Composition(), START
    for i in range(FINEST):
        x = step_of(none, x, i, 1)[1]
    return x


@cache
def parting(phi: LogRatio, steps: int, omit: Collection[ItoTerm] = ()) -> float:
    """How far paths in y end from those of the same noise in x, as a root mean square."""
    x, every = START, FINEST // steps
    for i in range(0, FINEST, every):
        in_y, in_x = step_of(phi, x, i, every, omit)
        x = torch.where(phi.contains(in_y)[:, None], phi.inverse(in_y), in_x)
    return float((phi.forward(x) - phi.forward(ends_in_x())).square().sum(1).mean().sqrt())


ALR, ILR = additive_log_ratio(2), isometric_log_ratio(2)


@pytest.mark.parametrize("phi", [ALR, ILR])
def test_paths_in_y_approach_those_in_x_with_the_root_of_the_step(phi: LogRatio) -> None:
    """Euler-Maruyama under noise that depends on y: strong order 1/2."""
    order = math.log(parting(phi, 32) / parting(phi, 512)) / math.log(16)
    assert 0.45 < order < 0.65


@pytest.mark.parametrize("omit", ["drift", "divergence", "volume"])
def test_without_any_ito_term_they_do_not(omit: ItoTerm) -> None:
    assert parting(ILR, 512, (omit,)) > 5 * parting(ILR, 512)


@pytest.mark.parametrize("factor", [0.0, -1.0])
def test_without_the_correction_or_with_its_sign_wrong_they_do_not(factor: float) -> None:
    assert parting(_Wrong(ILR, factor), 512) > 5 * parting(ILR, 512)


def test_through_an_affine_map_it_is_the_sampler_in_x_carried() -> None:
    """It has no second derivatives: the same paths by steps in y and in x, denoising included."""
    phi = Affine(torch.tensor([[0.8, 0.1], [0.0, 1.3]]), double(0.2, -0.4))
    times, start = solvers.uniform_times(VP, 30), normals(50, 2)
    ends = []
    for solve in (partial(euler_maruyama, phi), pushed(phi, solvers.euler_maruyama)):
        draws = iter(normals(30, 50, 2, seed=1))
        ends.append(solve(SCORE, VP, phi.forward(start), times, lambda d=draws: next(d)).detach())
    close(ends[0], ends[1], 1e-11)


def test_no_sample_leaves_the_simplex_however_few_the_steps() -> None:
    phi, source = isometric_log_ratio(2), torch.Generator().manual_seed(0)
    times = torch.linspace(1, 1e-3, 12, dtype=torch.float64)

    def noise() -> Tensor:
        return torch.randn(2000, 2, generator=source, dtype=torch.float64)

    start = noise()
    alone, _ = reverse_step(phi, SCORE, VP, start, times[0], times[1], noise())
    assert not phi.contains(alone).all()
    found = euler_maruyama(phi, SCORE, VP, phi.forward(start), times, noise)
    assert phi.contains(found).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_where_the_image_s_edge_is_a_rounding_away_samples_stay_finite(dtype: torch.dtype) -> None:
    wide, source = torch.full((4,), 10.0, dtype=torch.float64), torch.Generator().manual_seed(0)
    phi, score = isometric_log_ratio(4), Gaussian(torch.zeros(4).double(), wide.square()).score(VP)

    def noise() -> Tensor:
        return torch.randn(500, 4, generator=source, dtype=dtype)

    times = solvers.uniform_times(VP, 60)
    found = euler_maruyama(phi, score, VP, phi.forward(noise()), times, noise)
    assert found.isfinite().all()
    assert (found.sum(1) < 1 + 1e-5).all()


# -------------------------------------------------------------------------- probability flow


def test_the_flow_in_y_is_the_flow_in_x_carried() -> None:
    phi, x = isometric_log_ratio(2), normals(20, 2)
    y = phi.forward(x)
    times = double(0.9, 0.1)
    solve = partial(solvers.rk45, tolerance=1e-9)
    in_x = pushed(phi, solve)(SCORE, VP, y, times, torch.Tensor)
    field = flow_field(phi, SCORE, VP)
    end = integrate(lambda y, t: field(y, t).detach(), y, 0.9, 0.1, tolerance=1e-9)
    time = times[1].expand(20)
    there = phi.inverse(end)
    clean = there + VP.sigma(times[1]).square() * SCORE(there, time)
    close(phi.forward(clean / VP.alpha(times[1])).detach(), in_x.detach(), 6e-8)


def test_a_gaussians_flow_on_the_positive_numbers() -> None:
    """Data N(m, v) in x are log-normal in y: the flow in y is exp of the flow in x."""
    law = Gaussian(double(0.4, -0.2), double(0.3, 1.4))
    x, phi = normals(10, 2), exponential()
    field = flow_field(phi, law.score(VP), VP)
    end = integrate(field, x.exp(), 0.8, 0.2, tolerance=1e-9)
    close(end.log(), law.flow(VP, x, 0.8, 0.2), 1e-7)
