"""Eigenfunctions of the noising: what makes them ones, their products, and their sample means."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sno_dist.diffusion.axes import Axis, Circle, Interval, OrnsteinUhlenbeck
from sno_dist.diffusion.eigenfunctions import Eigenfunctions, carre_du_champ, up_to
from sno_dist.diffusion.schedule import (
    Schedule,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
    level,
)
from sno_dist.errors import ConfigError

AXES = [OrnsteinUhlenbeck(), Circle(5.0), Interval(-1.0, 2.0)]
KINDS = pytest.mark.parametrize("axis", AXES, ids=lambda axis: type(axis).__name__)
COUNT = 13


def points(count: int, dims: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 2, (count, dims)))


def slopes(values: Tensor, y: Tensor) -> Tensor:
    """Of (N, K) values, row by row functions of (N,) positions."""
    columns = [torch.autograd.grad(column.sum(), y, create_graph=True)[0] for column in values.T]
    return torch.stack(columns, 1)


@KINDS
def test_they_are_eigenfunctions_of_the_generator(axis: Axis) -> None:
    y = points(40, 1)[:, 0].requires_grad_()
    # A constant has no derivative, so it goes as a multiple of zero times y.
    values = axis.values(y, COUNT) + 0 * y[:, None] ** 3
    first = slopes(values, y)
    generated = slopes(first, y) + axis.stationary_score(y)[:, None] * first
    rates = axis.rates(torch.arange(COUNT))
    torch.testing.assert_close(generated, -rates * values, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(first, axis.slopes(y, COUNT), rtol=1e-12, atol=1e-12)
    assert rates.tolist() == sorted(rates.tolist())


def test_what_cannot_be_afforded_is_refused_without_being_listed() -> None:
    with pytest.raises(ConfigError, match=r"too many.*at: here .*than 1,000 of order 8 in 64"):
        up_to(Circle(8.0), 64, 8, most=1000, where="here")
    assert len(up_to(OrnsteinUhlenbeck(), 3, 4, most=34).indices) == 34
    with pytest.raises(ConfigError, match="more than 33"):
        up_to(OrnsteinUhlenbeck(), 3, 4, most=33)


def quadrature(axis: Axis) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the stationary law, exact for products of the first functions."""
    match axis:
        case OrnsteinUhlenbeck():
            nodes, weights = np.polynomial.hermite_e.hermegauss(40)
            return torch.from_numpy(nodes), torch.from_numpy(weights / weights.sum())
        case Circle(period):
            low, width = 0.0, period
        case Interval(low, high):
            width = high - low
    nodes = low + width * (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    return nodes, torch.full_like(nodes, 1 / 200)


@KINDS
def test_they_are_orthonormal_in_the_stationary_law(axis: Axis) -> None:
    nodes, weights = quadrature(axis)
    values = axis.values(nodes, COUNT)
    gram = values.T @ (weights[:, None] * values)
    torch.testing.assert_close(gram, torch.eye(COUNT).double(), rtol=0, atol=1e-11)


@KINDS
def test_the_stationary_law_has_mass_one_and_its_score(axis: Axis) -> None:
    low, high = {Circle: (0.0, 5.0), Interval: (-1.0, 2.0)}.get(type(axis), (-9.0, 9.0))
    y = low + (high - low) * (torch.arange(400, dtype=torch.float64) + 0.5) / 400
    y.requires_grad_()
    logs = axis.log_stationary(y)
    assert float(logs.detach().exp().mean()) * (high - low) == pytest.approx(1, abs=1e-12)
    (slope,) = torch.autograd.grad(logs.sum() + 0 * y.sum(), y)
    torch.testing.assert_close(slope, axis.stationary_score(y))


@KINDS
def test_products_are_sums_of_eigenfunctions(axis: Axis) -> None:
    y = points(30, 1)[:, 0]
    i, j = torch.cartesian_prod(torch.arange(COUNT), torch.arange(COUNT)).T
    k, c = axis.products(i, j)
    values = axis.values(y, 2 * COUNT + 1)
    sums = (c * values[:, k]).sum(-1)
    exact = values[:, i] * values[:, j]
    torch.testing.assert_close(sums, exact, rtol=1e-10, atol=1e-9)


@pytest.mark.parametrize("degree", [(3, 2), (24, 24), (1, 0)])
def test_the_product_of_hermite_polynomials_has_the_printed_terms(degree: tuple[int, int]) -> None:
    i, j = degree
    k, c = OrnsteinUhlenbeck().products(torch.tensor([i]), torch.tensor([j]))
    for r in range(min(i, j) + 1):
        chosen = math.comb(i, r) * math.comb(j, r) * math.comb(i + j - 2 * r, i - r)
        assert int(k[0, r]) == i + j - 2 * r
        assert float(c[0, r]) == pytest.approx(math.sqrt(chosen), rel=1e-14)


@KINDS
@pytest.mark.parametrize(
    "schedule", [VarianceExploding(), VariancePreserving(), SubVariancePreserving()]
)
def test_means_decay_at_their_rates_under_every_schedule(axis: Axis, schedule: Schedule) -> None:
    """E phi_n(y_t) of a noised point, by Gauss and Hermite, is exp(-r tau) phi_n(x_0)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(100)
    start, t = torch.tensor([0.4], dtype=torch.float64), torch.tensor([0.15], dtype=torch.float64)
    noised = schedule.alpha(t) * start + schedule.sigma(t) * torch.from_numpy(nodes)
    noise = level(schedule, t)
    y = axis.scale(noise) * noised / schedule.alpha(t)
    found = torch.from_numpy(weights / weights.sum()) @ axis.values(y, 9)
    faded = (-axis.rates(torch.arange(9)) * axis.clock(noise)).exp()
    torch.testing.assert_close(found, faded * axis.values(start, 9)[0], rtol=1e-9, atol=1e-10)


# ------------------------------------------------------------------------- several axes


@pytest.mark.parametrize(
    ("axis", "dims", "order", "active", "count"),
    [
        (Circle(8.0), 2, 6, None, 112),
        (Circle(8.0), 2, 8, None, 196),
        (Circle(8.0), 2, 10, None, 316),
        (OrnsteinUhlenbeck(), 2, 8, None, 44),
        (OrnsteinUhlenbeck(), 2, 12, None, 90),
        (OrnsteinUhlenbeck(), 20, 2, None, 230),
        (OrnsteinUhlenbeck(), 20, 3, 1, 60),
        (Interval(0.0, 1.0), 3, 1, None, 3),
    ],
)
def test_balls_of_indices_have_the_printed_sizes(
    axis: Axis, dims: int, order: int, active: int | None, count: int
) -> None:
    basis = up_to(axis, dims, order, active=active)
    assert len(basis.indices) == len(basis.indices.unique(dim=0)) == count
    assert bool((basis.rates > 0).all())
    assert int((basis.indices > 0).sum(1).max()) <= (active or dims)


@KINDS
def test_features_expansion_and_gradient_agree(axis: Axis) -> None:
    basis = up_to(axis, 3, 3)
    y = points(12, 3).requires_grad_()
    coefficients = torch.from_numpy(
        np.random.default_rng(1).standard_normal((2, len(basis.indices)))
    )
    features, sets = basis(y), y.unflatten(0, (2, 6))
    f = basis.expand(coefficients, sets)
    exact = (features.unflatten(0, (2, 6)) @ coefficients[..., None])[..., 0]
    torch.testing.assert_close(f, exact, rtol=0, atol=1e-11)
    (slope,) = torch.autograd.grad(f.sum(), y)
    found = basis.gradient(coefficients, sets)
    torch.testing.assert_close(found.flatten(0, 1), slope, rtol=1e-11, atol=1e-11)


@KINDS
@pytest.mark.parametrize(("dims", "order"), [(1, 6), (2, 4), (3, 2)])
def test_products_of_gradients_are_linearised(axis: Axis, dims: int, order: int) -> None:
    basis = up_to(axis, dims, order)
    count = len(basis.indices)
    measured, table = carre_du_champ(basis)
    assert torch.equal(measured.indices[:count], basis.indices)
    y = points(5, dims)
    eye = torch.eye(count).double()
    for point, values in zip(y, measured(y), strict=True):
        own = basis.gradient(eye, point.expand(count, 1, -1))[:, 0] / basis.rates.sqrt()[:, None]
        linear = eye + torch.mv(table, values).reshape(count, count)
        torch.testing.assert_close(linear, (own @ own.T).tril(), rtol=1e-9, atol=1e-9)


def test_hermite_needs_moments_up_to_twice_the_degree_less_two() -> None:
    basis = up_to(OrnsteinUhlenbeck(), 2, 5)
    measured, _ = carre_du_champ(basis)
    assert int(measured.indices.sum(1).max()) == 8


def test_functions_of_one_axis_each_need_no_mixed_moments() -> None:
    measured, _ = carre_du_champ(up_to(OrnsteinUhlenbeck(), 6, 4, active=1))
    assert int((measured.indices > 0).sum(1).max()) == 1


# -------------------------------------------------------------------------------- means


@KINDS
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_moments_are_those_of_the_features(axis: Axis, dims: int) -> None:
    basis = up_to(axis, dims, 3)
    y, lengths = points(50, dims), torch.tensor([10, 1, 30])  # nine rows are padding
    moments = basis.moments(y, lengths)
    for row, part in enumerate(basis(y[:41]).split([10, 1, 30])):
        torch.testing.assert_close(moments.mean[row], part.mean(0), rtol=1e-12, atol=1e-12)
        if len(part) > 1:
            exact = part.var(0) / len(part)
            torch.testing.assert_close(moments.variance[row], exact, rtol=1e-10, atol=1e-12)
    # One sample does not tell its law's spread: its own size stands for it.
    torch.testing.assert_close(moments.variance[1], moments.mean[1].square())


@KINDS
def test_moments_add_up_over_shards(axis: Axis) -> None:
    basis = up_to(axis, 2, 6)
    y = points(1000, 2)
    first, second, third = (
        basis.moments(part, torch.tensor([len(part)])) for part in y.split([130, 470, 400])
    )
    merged, whole = first + second + third, basis.moments(y, torch.tensor([1000]))
    torch.testing.assert_close(merged.mean, whole.mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(merged.variance, whole.variance, rtol=1e-12, atol=1e-15)
    assert merged.count.tolist() == [1000]


def test_sets_larger_than_what_is_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    basis, y = up_to(Circle(4.0), 2, 3), points(300, 2)
    whole = basis.moments(y, torch.tensor([300]))
    monkeypatch.setattr("sno_dist.diffusion.eigenfunctions.VALUES", 70)
    parts = basis.moments(y, torch.tensor([300]))
    torch.testing.assert_close(parts.total, whole.total, rtol=0, atol=1e-11)


def test_single_precision_samples_are_summed_in_double() -> None:
    basis, y = up_to(Circle(4.0), 2, 3), points(300, 2).float()
    found = basis.moments(y, torch.tensor([300]))
    exact = basis.moments(y.double(), torch.tensor([300]))
    assert found.total.dtype == torch.float64
    assert torch.equal(found.total, exact.total)


def test_a_row_of_its_own_indices() -> None:
    basis = Eigenfunctions(OrnsteinUhlenbeck(), torch.tensor([[1, 1]]))
    np.testing.assert_allclose(basis(torch.tensor([[2.0, 3.0]]).double()), [[6.0]])
