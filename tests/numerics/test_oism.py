"""Operator-informed score matching: exact laws, printed errors, shrinkage, density, many laws."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sno_dist.diffusion import likelihood
from sno_dist.diffusion.axes import Axis, Circle, Interval, OrnsteinUhlenbeck
from sno_dist.diffusion.eigenfunctions import (
    Eigenfunctions,
    Moments,
    carre_du_champ,
    up_to,
)
from sno_dist.diffusion.gaussian_mixture import GaussianMixture
from sno_dist.diffusion.sampler import Sampler
from sno_dist.diffusion.schedule import (
    Schedule,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
)
from sno_dist.score.oism import Fit, OperatorInformed, series_score
from sno_dist.score.shrinkage import Shrinkage, heat, stein

SCHEDULES = [VarianceExploding(), VariancePreserving(), SubVariancePreserving()]


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


class Target:
    """The 1-D mixture of two Gaussians that the errors below are printed for."""

    weights = double(0.4, 0.6)
    means = double(-1.2, 0.8)
    deviations = double(0.35, 0.45)

    def draw(self, count: int, seed: int) -> Tensor:
        rng = np.random.default_rng(seed)
        which = torch.from_numpy(rng.random(count) >= 0.4).long()
        noise = torch.from_numpy(rng.standard_normal(count))
        return (self.means[which] + self.deviations[which] * noise)[:, None]

    def at(self, y: Tensor, alpha: float, variance: float) -> tuple[Tensor, Tensor]:
        """Density and score under noise at (N,) points."""
        logs, slopes = self._terms(y, alpha, variance)
        return logs.logsumexp(1).exp(), (logs.softmax(1) * slopes).sum(1)

    def wrapped(self, y: Tensor, variance: float, period: float) -> tuple[Tensor, Tensor]:
        """The same on a circle."""
        parts = [self._terms(y + k * period, 1, variance) for k in range(-8, 9)]
        logs, slopes = (torch.cat([part[which] for part in parts], 1) for which in (0, 1))
        return logs.logsumexp(1).exp(), (logs.softmax(1) * slopes).sum(1)

    def _terms(self, y: Tensor, alpha: float, variance: float) -> tuple[Tensor, Tensor]:
        spread = (alpha * self.deviations).square() + variance
        gap = alpha * self.means - y[:, None]
        logs = self.weights.log() - 0.5 * (gap.square() / spread + (2 * math.pi * spread).log())
        return logs, gap / spread


TARGET = Target()


def exact(basis: Eigenfunctions) -> Moments:
    """Means of the target itself, by quadrature."""
    y = torch.linspace(-9, 9, 18001, dtype=torch.float64)
    density, _ = TARGET.at(y, 1, 0)
    mean = (density / density.sum()) @ basis(y[:, None])
    return Moments(total=mean[None], squares=mean[None].square(), count=torch.ones(1).long())


def fitted(axis: Axis, order: int, ridge: float = 0.0) -> Fit:
    model = OperatorInformed(up_to(axis, 1, order))
    moments = exact(model.measured)
    return Fit(model=model, moments=moments, shrinkage="none", ridge=ridge)


def fisher(fit: Fit, clock: float) -> Tensor:
    """E |s - s*|^2 / E |s*|^2 of each fitted law against the target, on a grid."""
    match fit.model.basis.axis:
        case OrnsteinUhlenbeck():
            y = torch.linspace(-6, 6, 6001, dtype=torch.float64)
            density, truth = TARGET.at(y, math.exp(-clock), -math.expm1(-2 * clock))
        case Circle(period):
            y = period * (torch.arange(800, dtype=torch.float64) / 800 - 0.5)
            density, truth = TARGET.wrapped(y, 2 * clock, period)
        case _:
            raise AssertionError
    coefficients = fit.coefficients(double(clock))[:, 0]
    points = y[:, None].expand(len(coefficients), -1, -1)
    error = (fit.model.score(coefficients, points)[..., 0] - truth).square() @ density
    return error / (truth.square() @ density)


# ------------------------------------------------------------------------------- exact


def gaussian_means(basis: Eigenfunctions, mean: Tensor, covariance: Tensor) -> Tensor:
    """Means of products of polynomials under Gaussians, (P, D) and (P, D, D), by quadrature."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    dims = mean.shape[1]
    z = torch.cartesian_prod(*[torch.from_numpy(nodes)] * dims).reshape(-1, dims)
    grid = torch.cartesian_prod(*[torch.from_numpy(weights / weights.sum())] * dims)
    weight = grid.reshape(-1, dims).prod(1)
    roots = torch.linalg.cholesky(covariance)
    return torch.stack([weight @ basis(m + z @ r.T) for m, r in zip(mean, roots, strict=True)])


def test_printed_coefficients_of_a_gaussian() -> None:
    model = OperatorInformed(up_to(OrnsteinUhlenbeck(), 1, 2))
    means = gaussian_means(model.measured, double(0.5)[None], double(0.25)[None, None])
    found = model.coefficients(means, double(0.3)[None], ridge=0.0)
    np.testing.assert_allclose(found[0, 0], [0.6295285593, -0.4946560826], rtol=0, atol=1e-9)
    spread = 1 - 0.75 * math.exp(-0.6)
    closed = [0.5 * math.exp(-0.3) / spread, (1 - 1 / spread) / math.sqrt(2)]
    np.testing.assert_allclose(found[0, 0], closed, rtol=0, atol=1e-14)


def gaussians(dims: int) -> tuple[Tensor, Tensor]:
    """Means and covariances of three laws."""
    rng = np.random.default_rng(dims)
    root = torch.from_numpy(0.4 * rng.standard_normal((3, dims, dims)))
    covariance = root @ root.mT + 0.1 * torch.eye(dims).double()
    return torch.from_numpy(0.5 * rng.standard_normal((3, dims))), covariance


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_degree_two_is_the_gaussian_score(dims: int) -> None:
    mean, covariance = gaussians(dims)
    model = OperatorInformed(up_to(OrnsteinUhlenbeck(), dims, 2))
    clocks = double(0.0, 0.1, 1.0)
    found = model.coefficients(
        gaussian_means(model.measured, mean, covariance), clocks[None], ridge=0.0
    )
    y = torch.from_numpy(np.random.default_rng(1).standard_normal((3, 20, dims)))
    for step, clock in enumerate(clocks.tolist()):
        alpha, variance = math.exp(-clock), -math.expm1(-2 * clock)
        spread = alpha**2 * covariance + variance * torch.eye(dims).double()
        closed = -torch.linalg.solve(spread, (y - alpha * mean[:, None]).mT).mT
        score = model.score(found[:, step], y)
        torch.testing.assert_close(score, closed, rtol=0, atol=1e-10)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
def test_the_same_in_every_schedule_s_clock(schedule: Schedule) -> None:
    mean, covariance = gaussians(2)
    model = OperatorInformed(up_to(OrnsteinUhlenbeck(), 2, 2))
    means = gaussian_means(model.measured, mean, covariance)
    moments = Moments(total=means, squares=means.square(), count=torch.ones(3).long())
    fit = Fit(model=model, moments=moments, shrinkage="none", ridge=0.0)
    law = GaussianMixture.gaussian(mean, covariance)
    x = torch.from_numpy(np.random.default_rng(2).standard_normal((3, 200, 2)))

    def error(nodes: int, t: Tensor) -> float:
        """Relative, over all laws and times; every law has all times."""
        t = t.expand(3, -1)
        exact = law.noised(schedule.alpha(t), schedule.sigma(t)).score(x[:, : t.shape[1]])
        rows = torch.arange(3).repeat_interleave(t.shape[1])
        points = x[:, : t.shape[1]].flatten(0, 1)
        found = fit.tabulate(schedule, nodes=nodes)(points, t.flatten(), rows)
        return float((found.view_as(exact) - exact).norm() / exact.norm())

    times = torch.linspace(0.01, 1, 200, dtype=torch.float64)
    errors = {nodes: error(nodes, times) for nodes in (128, 256)}
    assert errors[128] < 2e-3
    assert math.log2(errors[128] / errors[256]) > 1.8  # linear interpolation
    assert error(128, schedule.time(fit.tabulate(schedule, nodes=128).levels[::10])) < 1e-8


def test_a_ridge_is_mixing_with_the_stationary_law() -> None:
    model = OperatorInformed(up_to(OrnsteinUhlenbeck(), 2, 4))
    y = torch.from_numpy(np.random.default_rng(0).uniform(-1, 2, (200, 2)))
    mean, clocks = model.measured.moments(y, torch.tensor([200])).mean, double(0.0, 0.2)[None]
    weight = 0.7
    mixed = model.coefficients(weight * mean, clocks, ridge=0.0)
    ridged = model.coefficients(mean, clocks, ridge=(1 - weight) / weight)
    torch.testing.assert_close(mixed, ridged, rtol=1e-10, atol=1e-10)


def test_at_degree_two_a_ridge_shrinks_the_covariance_of_centred_data() -> None:
    model = OperatorInformed(up_to(OrnsteinUhlenbeck(), 2, 2))
    y = torch.from_numpy(np.random.default_rng(0).uniform(-1, 2, (200, 2)))
    y = y - y.mean(0)
    weight, covariance = 0.7, y.T @ y / len(y)
    mean = model.measured.moments(y, torch.tensor([200])).mean
    found = model.coefficients(mean, double(0.0)[None], ridge=(1 - weight) / weight)
    shrunk = weight * covariance + (1 - weight) * torch.eye(2).double()
    score = model.score(found[:, 0], y[None])[0]
    torch.testing.assert_close(score, -torch.linalg.solve(shrunk, y.T).T, rtol=0, atol=1e-12)


def test_the_solution_minimises_the_score_matching_loss_of_the_samples() -> None:
    """E[|grad f|^2 + 2 Lf] over the samples themselves at clock 0, by autograd."""
    model = OperatorInformed(up_to(Circle(5.0), 2, 2))
    y = torch.from_numpy(np.random.default_rng(0).uniform(-1, 2, (400, 2)))
    moments = model.measured.moments(y, torch.tensor([400]))
    a = model.coefficients(moments.mean, double(0.0)[None], ridge=0.0)[:, 0].requires_grad_()
    rates = model.basis.rates
    energy = model.basis.gradient(a, y[None]).square().sum(-1).mean()
    (slope,) = torch.autograd.grad(energy - 2 * model.basis.expand(rates * a, y[None]).mean(), a)
    torch.testing.assert_close(slope, torch.zeros_like(slope), rtol=0, atol=1e-9)


# ------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("axis", "order", "clock", "error"),
    [
        (OrnsteinUhlenbeck(), 8, 0.0, 0.12877),
        (OrnsteinUhlenbeck(), 8, 0.1, 0.055723),
        (OrnsteinUhlenbeck(), 8, 0.5, 1.2613e-4),
        (OrnsteinUhlenbeck(), 16, 0.1, 8.4474e-3),
        # The clock is half the level squared.
        (Circle(8.0), 8, 0.0, 9.846e-3),
        (Circle(8.0), 8, 0.05, 2.441e-3),
        (Circle(8.0), 16, 0.05, 1.375e-5),
    ],
)
def test_printed_errors_of_exact_means(axis: Axis, order: int, clock: float, error: float) -> None:
    assert float(fisher(fitted(axis, order), clock)) == pytest.approx(error, rel=0.02)


def test_more_eigenfunctions_never_do_worse() -> None:
    errors = [float(fisher(fitted(Circle(8.0), order), 0.01)) for order in (2, 4, 8, 16, 32)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-6


def test_where_cancellation_has_eaten_the_digits_the_rest_still_serves() -> None:
    fit = fitted(OrnsteinUhlenbeck(), 24)
    _, products = carre_du_champ(fit.model.basis)
    count = len(fit.model.basis.indices)
    table = torch.sparse.mm(products, fit.moments.mean.T).reshape(count, count)
    lowest = torch.linalg.eigvalsh(table + torch.eye(count).double())[0]
    assert float(lowest) < 0
    assert float(fisher(fit, 0.1)) < 2.5e-3
    assert float(fisher(fit, 0.5)) < 1e-7


@pytest.mark.parametrize("order", [16, 20, 24, 28])
def test_a_last_digit_of_the_means_does_not_decide(order: int) -> None:
    """So that machines which round sums in another order agree."""
    fit = fitted(OrnsteinUhlenbeck(), order)
    error = float(fisher(fit, 0.1))
    for seed in range(8):
        noise = np.random.default_rng(seed).choice([-1, 0, 1], fit.moments.total.shape)
        nudged = fit.moments.total * (1 + 2**-52 * torch.from_numpy(noise))
        moments = Moments(total=nudged, squares=fit.moments.squares, count=fit.moments.count)
        assert float(fisher(replace(fit, moments=moments), 0.1)) == pytest.approx(error, rel=0.03)


# ---------------------------------------------------------------------------- shrinkage


def samples(model: OperatorInformed, count: int, seeds: int) -> Moments:
    y = torch.cat([TARGET.draw(count, seed) for seed in range(seeds)])
    return model.measured.moments(y, torch.full((seeds,), count))


def test_shrinkage_gains_what_is_printed_and_more() -> None:
    """Medians of 100 sets of 1,000 samples, 12 waves; printed is one heat for all levels."""
    model = OperatorInformed(up_to(Circle(8.0), 1, 12))
    moments = samples(model, 1000, 100)
    medians = {}
    rules: tuple[tuple[Shrinkage, float], ...] = (("none", 0.0), ("stein", 0.0), ("heat", 1e-4))
    for shrinkage, ridge in rules:
        fit = Fit(model=model, moments=moments, shrinkage=shrinkage, ridge=ridge)
        medians[shrinkage] = [float(fisher(fit, s2 / 2).median()) for s2 in (0.0, 0.02, 0.1)]
    assert medians["none"][0] > 1e3  # without noise the samples are memorised
    assert medians["stein"][0] < 0.2
    for found, printed in zip(medians["heat"], (0.073, 0.033, 0.012), strict=True):
        assert found < printed
    # Chosen level by level, heat does not cost where raw means are good.
    assert all(ours < raw for ours, raw in zip(medians["heat"], medians["none"], strict=True))


def test_stein_s_weight_is_the_closed_one() -> None:
    moments = Moments(
        total=double(3, 4, 0, 1).reshape(1, 4),
        squares=double(20, 30, 10, 5).reshape(1, 4),
        count=torch.tensor([10]),
    )
    mean = np.array([0.3, 0.4, 0.0, 0.1])
    variance = (np.array([2.0, 3.0, 1.0, 0.5]) - mean**2) / 9
    expected = max(0.0, 1 - 2 / (mean**2 / variance).sum())
    assert float(stein(moments)) == pytest.approx(expected, rel=1e-12)


def test_stein_leaves_two_means_as_they_are_even_where_they_are_nought() -> None:
    nought = double(0, 0).reshape(1, 2)
    moments = Moments(total=nought, squares=double(2, 2).reshape(1, 2), count=torch.tensor([2]))
    assert stein(moments).tolist() == [1.0]


def test_heat_is_the_least_risk_of_its_candidates_and_falls_with_noise() -> None:
    basis = up_to(Circle(8.0), 1, 24)
    y = TARGET.draw(300, 0)
    moments = basis.moments(y, torch.tensor([300]))
    clocks = double(0.0, 0.02, 0.3)
    chosen = heat(moments, basis.rates, clocks)[0]
    m2, v, r = moments.mean[0].square(), moments.variance[0], basis.rates

    def risk(clock: float, extra: float) -> float:
        kept = (-r * extra).exp()
        terms = (1 - kept).square() * (m2 - v) + kept.square() * v
        return float((r * (-2 * r * clock).exp() * terms).sum())

    for clock, extra in zip(clocks.tolist(), chosen.tolist(), strict=True):
        least = min(risk(clock, other) for other in np.geomspace(1e-5, 10, 500))
        assert risk(clock, extra) - least < 0.01 * (risk(clock, 0.0) - least)
    assert float(chosen[0]) > float(chosen[1])


def test_one_sample_tells_nothing_of_its_law_but_is_not_an_error() -> None:
    model = OperatorInformed(up_to(Circle(8.0), 1, 4))
    fit = Fit(model=model, moments=model.measured.moments(double(0.3)[None], torch.tensor([1])))
    assert float(fit.coefficients(double(0.0)).abs().max()) < 1e-3


# ------------------------------------------------------------------------------ density


@pytest.mark.parametrize(("order", "gap"), [(8, 0.06), (16, 0.016)])
def test_the_log_density_s_gap_to_the_exact_one(order: int, gap: float) -> None:
    """Over all but 5e-4 of the mass: beyond it eight polynomials' flow runs off."""
    y = torch.linspace(-3, 2.3, 531, dtype=torch.float64)
    density, _ = TARGET.at(y, 1, 0)
    found = fitted(OrnsteinUhlenbeck(), order, 1e-12).log_density(y[None, :, None])[0]
    assert 0 < 0.01 * float(density @ (density.log() - found)) < gap


@pytest.mark.parametrize("axis", [Circle(8.0), Interval(-4.0, 4.0)], ids=lambda a: type(a).__name__)
def test_the_density_is_one_and_approaches_the_exact_one(axis: Axis) -> None:
    y = torch.linspace(-4, 4, 801, dtype=torch.float64)[:-1]
    density, _ = TARGET.at(y, 1, 0)
    found = fitted(axis, 32, 1e-6).log_density(y[None, :, None])[0].exp()
    assert 0.01 * float(found.sum()) == pytest.approx(1, abs=1e-3)
    assert 0.01 * float((found - density).abs().sum()) < 0.02


def test_the_density_agrees_with_that_of_the_probability_flow_in_x() -> None:
    schedule = VariancePreserving()
    fit = fitted(OrnsteinUhlenbeck(), 8, 1e-9)
    x = torch.linspace(-2, 2, 15, dtype=torch.float64)[:, None]
    score = fit.tabulate(schedule, nodes=512).of(0)
    found = likelihood.log_density(score, schedule, x, tolerance=1e-6)
    torch.testing.assert_close(found, fit.log_density(x[None])[0], rtol=0, atol=2e-3)


def test_a_gaussian_s_density_is_the_closed_one() -> None:
    mean, covariance = gaussians(2)
    model = OperatorInformed(up_to(OrnsteinUhlenbeck(), 2, 2))
    means = gaussian_means(model.measured, mean, covariance)
    moments = Moments(total=means, squares=means.square(), count=torch.ones(3).long())
    fit = Fit(model=model, moments=moments, shrinkage="none", ridge=0.0)
    y = mean[:, None] + torch.from_numpy(np.random.default_rng(3).standard_normal((3, 8, 2))) / 2
    closed = torch.distributions.MultivariateNormal(mean[:, None], covariance[:, None]).log_prob(y)
    torch.testing.assert_close(fit.log_density(y, steps=320), closed, rtol=0, atol=5e-6)


def test_a_flow_that_runs_off_leaves_density_zero() -> None:
    far = fitted(OrnsteinUhlenbeck(), 8).log_density(double(-8.0, 0.5)[None, :, None])[0]
    assert float(far[0]) == -math.inf
    assert math.isfinite(float(far[1]))


def test_samples_follow_the_law() -> None:
    schedule = VariancePreserving()
    score = fitted(OrnsteinUhlenbeck(), 12, 1e-9).tabulate(schedule).of(0)
    source = torch.Generator().manual_seed(0)

    def noise() -> Tensor:
        return torch.randn(4000, 1, generator=source, dtype=torch.float64)

    x = Sampler(kind="dpmpp_2m", steps=40)(score, schedule, noise)[:, 0]
    assert float((x < -0.3).double().mean()) == pytest.approx(0.4, abs=0.03)
    assert float(x.mean()) == pytest.approx(0.0, abs=0.05)
    assert float(x.square().mean()) == pytest.approx(1.1305, abs=0.08)


# ----------------------------------------------------------------------- many at a time


@pytest.mark.parametrize("axis", [OrnsteinUhlenbeck(), Circle(8.0)], ids=lambda a: type(a).__name__)
def test_laws_fitted_together_are_those_fitted_alone(
    axis: Axis, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = OperatorInformed(up_to(axis, 1, 6))
    moments, clocks = samples(model, 200, 5), double(0.0, 0.05, 0.7)
    together = Fit(model=model, moments=moments).coefficients(clocks)
    for law in range(5):
        alone = samples_of(moments, law)
        found = Fit(model=model, moments=alone).coefficients(clocks)
        torch.testing.assert_close(found[0], together[law], rtol=1e-9, atol=1e-11)
    monkeypatch.setattr("sno_dist.score.oism.ENTRIES", 1)
    cut = Fit(model=model, moments=moments).coefficients(clocks)
    torch.testing.assert_close(cut, together, rtol=1e-9, atol=1e-11)


def samples_of(moments: Moments, law: int) -> Moments:
    own = slice(law, law + 1)
    return Moments(total=moments.total[own], squares=moments.squares[own], count=moments.count[own])


def test_every_row_has_its_own_law_and_time() -> None:
    model = OperatorInformed(up_to(Circle(8.0), 1, 6))
    table = Fit(model=model, moments=samples(model, 200, 3)).tabulate(VarianceExploding())
    x = torch.linspace(-2, 2, 12, dtype=torch.float64)[:, None]
    law, t = torch.arange(12) % 3, torch.linspace(0.01, 1, 12, dtype=torch.float64)
    found = table(x, t, law)
    for row in range(12):
        alone = table.of(int(law[row]))(x[row : row + 1], t[row : row + 1])
        torch.testing.assert_close(found[row : row + 1], alone)


# -------------------------------------------------------------------- the density series


def test_the_series_is_the_noised_empirical_law() -> None:
    """At every level from the bandwidth up, as printed: period R + l tau, relative error 1e-6."""
    bandwidth, error, extent = 0.5, 1e-8, 14.0
    tail = math.sqrt(2 * math.log(4 / error))
    period = extent + bandwidth * tail
    basis = up_to(Circle(period), 2, math.ceil(tail / bandwidth * period / (2 * math.pi)))
    rng = np.random.default_rng(0)
    y = torch.from_numpy(rng.uniform(-3, 3, (200, 2)))
    mean = basis.moments(y, torch.tensor([200])).mean
    for noise in (0.5, 0.7, 1.0):
        x = y[:50] + noise * torch.from_numpy(rng.standard_normal((50, 2)))
        shares = (-0.5 * torch.cdist(x, y).square() / noise**2).softmax(1)
        empirical = (shares @ y - x) / noise**2
        clock = double(0.5 * noise**2)[0]
        found = series_score(basis, mean, clock, x[None])[0]
        assert float((found - empirical).norm() / empirical.norm()) < 1e-6


def test_the_series_of_a_gaussian_under_ornstein_uhlenbeck_noise() -> None:
    basis = up_to(OrnsteinUhlenbeck(), 1, 11)
    mean = gaussian_means(basis, double(0.3)[None], double(0.5)[None, None])
    y, clock = torch.linspace(-1.5, 1.5, 9, dtype=torch.float64), 1.0
    alpha = math.exp(-clock)
    closed = -(y - alpha * 0.3) / (1 - 0.5 * alpha**2)
    found = series_score(basis, mean, double(clock)[0], y[None, :, None])[0, :, 0]
    torch.testing.assert_close(found, closed, rtol=0, atol=1e-5)
