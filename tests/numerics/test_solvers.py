"""Solvers: order of convergence, exact flows, independence of the batch, moments of the SDE."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from sno_dist.diffusion import solvers
from sno_dist.diffusion.ode import integrate
from sno_dist.diffusion.sampler import Sampler, SolverKind
from sno_dist.diffusion.schedule import (
    Schedule,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
)
from sno_dist.errors import RunError
from tests.numerics.gaussians import Gaussian, Mixture

SCHEDULES = [VarianceExploding(25.0), VariancePreserving(), SubVariancePreserving()]
LAW = Gaussian(
    torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([0.3, 2.0], dtype=torch.float64)
)


def silent() -> Tensor:
    raise AssertionError("a deterministic solver asked for noise")


def endpoint(schedule: Schedule, solver, steps: int) -> Tensor:
    mixture = Mixture(torch.tensor([[1.0, 0.5], [-1.0, 0.0], [0.0, -1.2]]).double(), 0.3)
    times = solvers.levels(schedule, steps, top=20.0)
    start = torch.tensor([[1.0, 0.3], [-0.4, 1.1], [0.2, -0.9], [-1.3, -0.2]]).double()
    x = start * float(solvers.prior_scale(schedule, times[0]))
    return solver(mixture.score(schedule), schedule, x, times, silent).detach()


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("solver", "order"), [(solvers.ddim, 1), (solvers.heun, 2), (solvers.dpmpp_2m, 2)]
)
def test_order_of_convergence(schedule: Schedule, solver, order: int) -> None:
    exact = endpoint(schedule, solvers.heun, 2000)
    coarse = (endpoint(schedule, solver, 80) - exact).norm()
    fine = (endpoint(schedule, solver, 160) - exact).norm()
    assert math.log2(float(coarse / fine)) > order - 0.1


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_rk45_follows_the_exact_flow(schedule: Schedule) -> None:
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x * float(schedule.sigma(torch.tensor(1.0)))
    times = solvers.uniform_times(schedule, 2)
    got = solvers.rk45(LAW.score(schedule), schedule, x, times, silent, tolerance=1e-9)
    end = LAW.flow(schedule, x, 1.0, solvers.START)
    at = times[-1].expand(5)
    exact = end + schedule.sigma(times[-1]) ** 2 * LAW.score(schedule)(end, at)
    torch.testing.assert_close(got, exact / schedule.alpha(times[-1]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("solver", "order"), [(solvers.ddim, 1), (solvers.dpmpp_2m, 2)])
@pytest.mark.parametrize("eta", [0.5, 1.0, 2.0])
def test_weak_order_with_noise(schedule: Schedule, solver, order: int, eta: float) -> None:
    variance = 2.0

    def error(steps: int) -> float:
        """The exact error of the variance: of a Gaussian law a solver is linear in its draws.

        Each row is given one of them alone, so what comes of the rows adds up in squares.
        """
        times = solvers.levels(schedule, steps, top=20.0)
        law = Gaussian(torch.zeros(1).double(), torch.tensor([variance]).double())
        draws = iter(torch.eye(steps, dtype=torch.float64)[:, :, None])
        alpha, sigma = schedule.alpha(times), schedule.sigma(times)
        x = next(draws) * (alpha[0].square() * variance + sigma[0].square()).sqrt()
        out = solver(law.score(schedule), schedule, x, times, lambda: next(draws), eta=eta)
        left = alpha[-1].square() * variance + sigma[-1].square()
        return float(out.square().sum() - (alpha[-1] * variance).square() / left)

    assert math.log2(abs(error(160) / error(320))) > order - 0.1


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0, 2.0])
def test_noise_given_back_keeps_a_points_marginal(schedule: Schedule, eta: float) -> None:
    point, z = torch.tensor([[0.7, -0.2]]).double(), torch.tensor([[1.0, -1.0]]).double()
    start, end = torch.tensor([0.9, 0.4], dtype=torch.float64)
    x = schedule.alpha(start) * point + schedule.sigma(start) * z
    got = solvers.exponential_step(schedule, x, point, start, end, eta)
    left = (got - schedule.alpha(end) * point) / z
    given = solvers.fresh_noise(schedule, start, end, eta)
    exact = schedule.sigma(end).square().expand(1, 2)
    torch.testing.assert_close(left.square() + given**2, exact, rtol=1e-12, atol=0)


def test_one_step_from_a_point_mass_is_exact() -> None:
    schedule = VariancePreserving()
    point = Gaussian(torch.tensor([0.7, -0.2]).double(), torch.zeros(2).double())
    x = torch.randn(4, 2, dtype=torch.float64)
    start, end = torch.tensor([0.9, 0.4], dtype=torch.float64)
    got = solvers.exponential_step(schedule, x, point.mean, start, end)
    noise = (x - schedule.alpha(start) * point.mean) / schedule.sigma(start)
    exact = schedule.alpha(end) * point.mean + schedule.sigma(end) * noise
    torch.testing.assert_close(got, exact, rtol=0, atol=1e-12)
    for solve in (solvers.ddim, solvers.dpmpp_2m):
        whole = solve(point.score(schedule), schedule, x, torch.stack([start, end]), silent)
        torch.testing.assert_close(whole, point.mean.expand(4, 2), rtol=0, atol=1e-12)


def test_printed_step() -> None:
    schedule = VariancePreserving()
    start, end = schedule.time(torch.tensor([0.8 / 0.6, 0.6 / 0.8], dtype=torch.float64))
    assert float(schedule.alpha(start)) == pytest.approx(0.6, abs=1e-12)
    # of N(0, 1) the score is -x and D = alpha x; the exact flow stays at 1
    x = torch.ones(1, 1, dtype=torch.float64)
    found = solvers.exponential_step(schedule, x, schedule.alpha(start) * x, start, end)
    assert float(found) == pytest.approx(0.96, abs=1e-12)


def test_printed_grid() -> None:
    class Levels(VarianceExploding):
        """Alpha = 1 and a sigma of .01 at START and 80 at 1; its times are levels."""

        def alpha(self, t: Tensor) -> Tensor:
            return torch.ones_like(t)

        def sigma(self, t: Tensor) -> Tensor:
            return 0.01 + (t - solvers.START) / (1 - solvers.START) * 79.99

        def time(self, level: Tensor) -> Tensor:
            return level

    grid = solvers.levels(Levels(25.0), 5)
    edm = [80, 19.813775588, 3.4603421725, 0.33673245211, 0.01]
    np.testing.assert_allclose(grid.numpy(), edm, rtol=1e-9)


@pytest.mark.parametrize("kind", ["euler_maruyama", "predictor_corrector", "ddim", "dpmpp_2m"])
def test_moments_of_the_reverse_sde(kind: SolverKind) -> None:
    schedule, count = VariancePreserving(), 20_000
    law = Gaussian(torch.tensor([0.5, 0.0]).double(), torch.tensor([0.5, 1.5]).double())
    source = torch.Generator().manual_seed(1)
    noise = lambda: torch.randn(count, 2, generator=source, dtype=torch.float64)  # noqa: E731
    x = Sampler(kind=kind, steps=300, eta=1.0)(law.score(schedule), schedule, noise)
    # standard errors are .005 and .01; the rest is the discretisation's bias
    torch.testing.assert_close(x.mean(0), law.mean, rtol=0, atol=0.03)
    torch.testing.assert_close(x.T.cov().diagonal(), law.variance, rtol=0, atol=0.06)


@pytest.mark.parametrize(
    "kind", ["euler_maruyama", "predictor_corrector", "ddim", "heun", "dpmpp_2m", "rk45"]
)
@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_a_sample_does_not_depend_on_its_batch(kind: SolverKind, eta: float) -> None:
    schedule = VariancePreserving()
    mixture = Mixture(torch.tensor([[1.0, 0.5], [-1.0, 0.0]]).double(), 0.3)

    def draw(ids: list[int]) -> Tensor:
        sources = [torch.Generator().manual_seed(i) for i in ids]
        noise = lambda: torch.stack(  # noqa: E731
            [torch.randn(2, generator=s, dtype=torch.float64) for s in sources]
        )
        sampler = Sampler(kind=kind, steps=12, eta=eta)
        return sampler(mixture.score(schedule), schedule, noise).detach()

    torch.testing.assert_close(draw([3, 1, 4, 5])[1], draw([1])[0], rtol=0, atol=1e-10)


def test_the_adaptive_solver_ignores_the_number_of_steps() -> None:
    schedule, noise = VariancePreserving(), torch.randn(4, 2, dtype=torch.float64)
    one, many = (
        Sampler(kind="rk45", steps=steps)(LAW.score(schedule), schedule, noise.clone)
        for steps in (1, 16)
    )
    torch.testing.assert_close(one, many, rtol=0, atol=0)
    assert float((one - LAW.mean).abs().max()) > 0.1


@pytest.mark.parametrize("from_the_start", [True, False])
def test_a_field_that_is_not_finite_is_told_at_once(from_the_start: bool) -> None:
    asked = []

    def field(y: Tensor, t: Tensor) -> Tensor:
        asked.append(0)
        wrong = torch.full_like(y, math.nan)
        return wrong if from_the_start else torch.where(t[:, None] > 0.5, wrong, -y)

    with pytest.raises(RunError, match="the adaptive solver stands still"):
        integrate(field, torch.ones(3, 2), 0.0, 1.0, tolerance=1e-5)
    assert len(asked) < 500


def test_integrate_agrees_with_scipy() -> None:
    def field(y: Tensor, t: Tensor) -> Tensor:
        return torch.stack([y[:, 1], -(y[:, 0] ** 3) + torch.cos(3 * t)], 1)

    start = torch.tensor([[1.0, 0.0], [0.2, -2.0]]).double()
    got = integrate(field, start, 0.0, 4.0, tolerance=1e-10)
    for row, first in zip(got, start, strict=True):
        oracle = solve_ivp(
            lambda t, y: [y[1], -(y[0] ** 3) + math.cos(3 * t)],
            (0, 4),
            first.numpy(),
            rtol=1e-11,
            atol=1e-11,
        )
        np.testing.assert_allclose(row.numpy(), oracle.y[:, -1], atol=1e-7)
