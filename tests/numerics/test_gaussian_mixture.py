"""Gaussian mixtures: printed values, autograd, closure under noise, the HJB equation, draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.datasets import make_moons
from torch import Tensor

from sno_dist.diffusion import gaussian_mixture
from sno_dist.diffusion.covariance import (
    CholeskyPrecision,
    Covariance,
    Diagonal,
    LowRank,
    Spectral,
)
from sno_dist.diffusion.gaussian_mixture import GaussianMixture
from sno_dist.diffusion.objective import posterior_noise
from sno_dist.diffusion.schedule import VariancePreserving
from sno_dist.embedding.fourier import FourierQuadrature
from sno_dist.shards.sources.gaussian_mixture import lower_corners

P, C, D = 3, 4, 3
FORMS = ("diagonal", "spectral", "low_rank", "cholesky")


def at(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def covariance(form: str, source: torch.Generator) -> Covariance:
    """A form of P x C random covariances in D dimensions."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(P, 1, C, *shape, generator=source, dtype=torch.float64)

    match form:
        case "diagonal":
            return Diagonal(normal(D).exp())
        case "spectral":
            return Spectral(torch.linalg.qr(normal(D, D))[0], normal(D).exp())
        case "low_rank":
            return LowRank(normal(D).exp(), normal(D, 2))
        case _:
            return CholeskyPrecision.regularised(normal(D, D).tril(), 0.1)


def law(form: str) -> GaussianMixture:
    source = torch.Generator().manual_seed(FORMS.index(form))
    weights = torch.randn(P, C, generator=source, dtype=torch.float64).log_softmax(1)
    return GaussianMixture(
        log_weights=weights,
        centres=torch.randn(P, 1, C, D, generator=source, dtype=torch.float64),
        covariance=covariance(form, source),
    )


def points(count: int = 6) -> Tensor:
    source = torch.Generator().manual_seed(9)
    return 2 * torch.randn(P, count, D, generator=source, dtype=torch.float64)


def dense(form: Covariance) -> Tensor:
    """The covariances themselves, (P, C, D, D), by their action on the axes."""
    axes = torch.eye(D, dtype=torch.float64)[:, None].expand(P, -1, C, -1)
    return torch.linalg.inv(form.pull(axes).transpose(1, 2))


def two_components() -> GaussianMixture:
    lower = torch.tensor([[[2, 0], [0.5, 1]], [[1, 0], [-0.3, 1.5]]], dtype=torch.float64)
    return GaussianMixture(
        log_weights=at(0.5, 0.5).log()[None],
        centres=torch.tensor([[[[0, 0], [1, -1]]]], dtype=torch.float64),
        covariance=CholeskyPrecision.regularised(lower[None, None], 0.01),
    )


# ---------------------------------------------------------------------- values, derivatives


def test_printed_values() -> None:
    found = two_components().at(at(0.4, 0.2)[None, None])
    assert float(found.log_density) == pytest.approx(-2.1244016275, abs=1e-9)
    np.testing.assert_allclose(found.score[0, 0], (-1.4591758226, -0.9442913966), atol=1e-9)
    assert float(found.laplacian) == pytest.approx(-0.5742276287, abs=1e-9)
    assert float(found.implicit_loss()) == pytest.approx(-4.1693355802, abs=1e-9)


def test_printed_values_under_noise() -> None:
    found = two_components().noised(at(0.8)[0], at(0.6)[0]).at(at(0.4, 0.2)[None, None])
    assert float(found.log_density) == pytest.approx(-2.0445108668, abs=1e-9)
    np.testing.assert_allclose(found.score[0, 0], (-0.4012318854, -0.7248306517), atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("noise", [None, (0.7, 0.4)])
def test_the_density_is_that_of_scipy(form: str, noise: tuple[float, float] | None) -> None:
    mixture, x = law(form), points()
    alpha, sigma = noise or (1.0, 0.0)
    covariances = alpha**2 * dense(mixture.covariance) + sigma**2 * torch.eye(
        D, dtype=torch.float64
    )
    found = (mixture.noised(at(alpha)[0], at(sigma)[0]) if noise else mixture).log_density(x)
    for p in range(P):
        parts = [
            math.exp(mixture.log_weights[p, c])
            * multivariate_normal.pdf(x[p], alpha * mixture.centres[p, 0, c], covariances[p, c])
            for c in range(C)
        ]
        np.testing.assert_allclose(found[p], np.log(np.sum(parts, 0)), rtol=0, atol=1e-11)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("noisy", [False, True])
def test_score_and_laplacian_are_the_density_s_derivatives(form: str, noisy: bool) -> None:
    mixture = law(form).noised(at(0.7)[0], at(0.4)[0]) if noisy else law(form)
    x = points().requires_grad_()
    (slope,) = torch.autograd.grad(mixture.log_density(x).sum(), x, create_graph=True)
    bends = [
        torch.autograd.grad(slope[..., axis].sum(), x, retain_graph=True)[0][..., axis]
        for axis in range(D)
    ]
    found = mixture.at(x.detach())
    torch.testing.assert_close(found.score, slope.detach(), rtol=0, atol=1e-11)
    torch.testing.assert_close(mixture.score(x.detach()), found.score, rtol=0, atol=1e-14)
    laplacian = torch.stack(bends).sum(0) + slope.detach().square().sum(-1)
    torch.testing.assert_close(found.laplacian, laplacian, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        found.implicit_loss(),
        2 * torch.stack(bends).sum(0) + slope.detach().square().sum(-1),
        rtol=1e-10,
        atol=1e-10,
    )


def test_the_flow_solves_the_hamilton_jacobi_bellman_equation() -> None:
    # dU/dt - |grad U|^2 / 2 + beta^2 Laplacian U / 2 = 0 for U = -beta^2 ln eta(x, T - t), eta the
    # terminal law after heat of variance beta^2 (T - t).
    beta, x = 0.8, points(40)[:1, :, :2]
    mixture = two_components()

    def potential(left: float) -> Tensor:
        return -(beta**2) * mixture.noised(at(1)[0], at(beta * left**0.5)[0]).log_density(x)

    for left in (0.1, 0.5, 2.0):
        step = 1e-4 * left
        rate = (potential(left - step) - potential(left + step)) / (2 * step)
        local = mixture.noised(at(1)[0], at(beta * left**0.5)[0]).at(x)
        gradient = -(beta**2) * local.score
        bend = -(beta**2) * (local.laplacian - local.score.square().sum(-1))
        residual = rate - 0.5 * gradient.square().sum(-1) + 0.5 * beta**2 * bend
        assert float(residual.abs().max()) < 1e-6


# ------------------------------------------------------------------------------ closure


@pytest.mark.parametrize("form", FORMS)
def test_noise_upon_noise_is_noise(form: str) -> None:
    x = points()
    once = law(form).noised(at(0.42)[0], at(math.hypot(0.6 * 0.5, 0.3))[0])
    twice = law(form).noised(at(0.7)[0], at(0.5)[0]).noised(at(0.6)[0], at(0.3)[0])
    for own, other in zip(_values(once.at(x)), _values(twice.at(x)), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("form", FORMS)
def test_every_distribution_and_every_point_may_have_noise_of_its_own(form: str) -> None:
    mixture, x = law(form), points()
    source = torch.Generator().manual_seed(3)
    alpha, sigma = torch.rand(2, P, 6, generator=source, dtype=torch.float64) + 0.1
    each = mixture.noised(alpha, sigma).at(x)
    for n in range(6):
        rows = mixture.noised(alpha[:, n], sigma[:, n]).at(x[:, n : n + 1])
        for own, other in zip(_values(each), _values(rows), strict=True):
            torch.testing.assert_close(own[:, n : n + 1], other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("form", FORMS)
def test_points_taken_a_few_at_a_time_have_the_same_values(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = points()
    mixture = law(form).noised(at(0.9)[0].expand(P, 6), at(0.2)[0].expand(P, 6))
    whole = mixture.at(x)
    monkeypatch.setattr(gaussian_mixture, "VALUES", 2 * P * C * D)
    for own, other in zip(_values(mixture.at(x)), _values(whole), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-13, atol=1e-13)


def test_one_component_is_the_moments_gaussian() -> None:
    source = torch.Generator().manual_seed(0)
    root = torch.randn(P, D, D, generator=source, dtype=torch.float64)
    mean, x = root[:, 0], points()
    spread = root @ root.mT + torch.eye(D, dtype=torch.float64)
    alpha, sigma = at(0.8)[0], at(0.6)[0]
    found = GaussianMixture.gaussian(mean, spread).noised(alpha, sigma).score(x)
    noised = alpha**2 * spread + sigma**2 * torch.eye(D, dtype=torch.float64)
    exact = -torch.linalg.solve(noised[:, None], (x - alpha * mean[:, None])[..., None])[..., 0]
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-12)


def test_a_singular_covariance_has_draws_and_a_density() -> None:
    few = torch.randn(5, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    law = GaussianMixture.gaussian(few.mean(0)[None], torch.cov(few.T)[None])
    normals = torch.randn(1, 100, 8, dtype=torch.float64)
    drawn = law.sample(torch.zeros(1, 100), normals)
    assert drawn.isfinite().all()
    # they lie where the samples do
    gaps, span = drawn[0] - few.mean(0), (few - few.mean(0))[:4]
    inside = span.T @ torch.linalg.lstsq(span.T, gaps.T).solution
    torch.testing.assert_close(inside.T, gaps, rtol=0, atol=1e-6)
    assert law.noised(at(1)[0], at(1e-3)[0]).log_density(drawn).isfinite().all()


def test_no_variance_is_the_law_of_the_samples_that_memorises() -> None:
    # -sigma s is then the mean of the noise over the samples that a point may have come from
    schedule = VariancePreserving()
    samples, t = points(20), at(0.02, 0.3, 0.9).expand(P, -1).contiguous()
    x = points(3)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    score = GaussianMixture.isotropic(samples, torch.zeros(P)).noised(alpha, sigma).score(x)
    exact = posterior_noise(x, t, schedule, samples)
    torch.testing.assert_close(-sigma[..., None] * score, exact, rtol=1e-9, atol=1e-11)


def test_an_embedding_s_features_hold_every_score_at_its_bandwidth_and_above() -> None:
    # p of the noised samples is their kernel mean embedding at bandwidth sigma: features at l,
    # damped by exp(-|omega|^2 (sigma^2 - l^2) / 2), and the slope of the logarithm of their sum.
    rng = np.random.default_rng(0)
    corners = lower_corners("00-02-14-54")[rng.integers(4, size=2000)]
    samples = torch.from_numpy(corners + rng.random(corners.shape))
    quadrature = FourierQuadrature(at(0.5)[0], at(14, 14), at(1e-8)[0])
    mean = quadrature.sums(samples, torch.tensor([2000])).mean[0]
    weights = quadrature.weigh(torch.ones(quadrature.size, dtype=torch.float64)).square()
    orders = torch.arange(1, quadrature.order + 1).double()
    omega = [torch.cat([at(0), step * orders, step * orders]) for step in quadrature.steps]
    squares = (omega[0].square()[:, None] + omega[1].square()).flatten()
    x = torch.from_numpy(corners[:200] + rng.random((200, 2)))
    for sigma in (0.5, 0.7, 1.0):
        damped = weights * (-0.5 * squares * (sigma**2 - 0.25)).exp() * mean
        y = x.clone().requires_grad_()
        found = torch.autograd.grad((waves(quadrature, y) @ damped).log().sum(), y)[0]
        empirical = GaussianMixture.isotropic(samples[None], torch.zeros(1))
        exact = empirical.noised(at(1)[0], at(sigma)[0]).score(x[None])[0]
        assert float((found - exact).norm() / exact.norm()) < 1e-6


def waves(quadrature: FourierQuadrature, x: Tensor) -> Tensor:
    """The features that `quadrature` averages, differentiable in x."""
    axes = []
    for axis, step in enumerate(quadrature.steps):
        angle = step * x[:, axis : axis + 1] * torch.arange(1, quadrature.order + 1)
        axes.append(torch.cat([torch.ones_like(angle[:, :1]), angle.cos(), angle.sin()], 1))
    return (axes[0][:, :, None] * axes[1][:, None]).flatten(1)


# ---------------------------------------------------------------- components left out, trap


@pytest.mark.parametrize("form", FORMS)
def test_an_excluded_component_is_as_if_it_were_not_there(form: str) -> None:
    mixture, x = law(form), points()
    excluded = torch.zeros(P, 6, C, dtype=torch.bool)
    excluded[..., 1] = True
    kept = torch.tensor([0, 2, 3])
    rest = GaussianMixture(
        log_weights=mixture.log_weights[:, kept].log_softmax(1),
        centres=mixture.centres[:, :, kept],
        covariance=mixture.covariance.mapped(lambda values: values[:, :, kept]),
    )
    for own, other in zip(_values(mixture.at(x, excluded)), _values(rest.at(x)), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-11, atol=1e-11)


def test_a_centre_that_explains_itself_leaves_the_implicit_loss_without_bound() -> None:
    samples = torch.from_numpy(make_moons(100, noise=0.05, random_state=0)[0])[None]
    themselves = torch.eye(100, dtype=torch.bool)[None]
    told, left_out = [], []
    for precision in (10.0, 1e2, 1e3, 1e4):
        kernels = GaussianMixture.isotropic(samples, at(precision**-0.5))
        told.append(float(kernels.at(samples).implicit_loss().mean()))
        left_out.append(float(kernels.at(samples, themselves).implicit_loss().mean()))
    assert told == sorted(told, reverse=True)
    # -2 D times the precision, but for samples that are near another
    assert -4e4 < told[-1] < -3.5e4
    assert left_out[-1] > left_out[1]


# -------------------------------------------------------------------------------- draws


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("noisy", [False, True])
def test_draws_have_the_mixture_s_moments(form: str, noisy: bool) -> None:
    mixture = law(form).noised(at(0.7)[0], at(0.4)[0]) if noisy else law(form)
    rng, count = np.random.default_rng(1), 200_000
    uniform = torch.from_numpy(rng.random((P, count)))
    normals = torch.from_numpy(rng.standard_normal((P, count, mixture.entries)))
    drawn = mixture.sample(uniform, normals)
    weights, centres = mixture.log_weights.exp()[..., None], mixture.centres[:, 0]
    mean = (weights * centres).sum(1)
    second = dense(mixture.covariance) + centres[..., None] * centres[..., None, :]
    spread = (weights[..., None] * second).sum(1) - mean[..., None] * mean[:, None]
    deviation = spread.diagonal(dim1=1, dim2=2).sqrt()
    assert float(((drawn.mean(1) - mean).abs() / deviation).max()) < 5 / count**0.5
    centred = drawn - drawn.mean(1, keepdim=True)
    found = centred.mT @ centred / count
    scale = deviation[..., None] * deviation[:, None]
    # five standard errors of a product of heavy-tailed pairs, whose kurtosis is below 12 here
    assert float(((found - spread).abs() / scale).max()) < 5 * (12 / count) ** 0.5


def test_a_draw_depends_on_its_own_numbers_alone_and_never_on_absent_components() -> None:
    mixture = GaussianMixture.isotropic(
        torch.arange(4.0).double()[None, :, None],
        at(1e-9),
        at(-math.inf, math.log(0.25), math.log(0.75), -math.inf)[None],
    )
    uniform = at(0.0, 0.2499, 0.2501, 1 - 2**-53)[None]
    drawn = mixture.sample(uniform, torch.zeros(1, 4, 1))
    assert drawn[0, :, 0].tolist() == [1, 1, 2, 2]
    alone = mixture.sample(uniform[:, 2:3], torch.zeros(1, 1, 1))
    assert torch.equal(alone, drawn[:, 2:3])
    single = mixture.mapped(lambda values: values.float())
    assert single.sample(uniform, torch.zeros(1, 4, 1))[0, :, 0].tolist() == [1, 1, 2, 2]


def test_points_with_noise_of_their_own_are_drawn_from_their_own_laws() -> None:
    mixture = GaussianMixture.isotropic(at(2, -2)[None, :, None], at(0))
    alpha, sigma = at(1, 0.5)[None], at(0.1, 0.2)[None]
    drawn = mixture.noised(alpha, sigma).sample(at(0.1, 0.9)[None], torch.ones(1, 2, 1))
    np.testing.assert_allclose(drawn[0, :, 0], [2.1, -0.8], rtol=1e-12)


def _values(local: gaussian_mixture.Local) -> tuple[Tensor, Tensor, Tensor]:
    return local.log_density, local.score, local.laplacian
