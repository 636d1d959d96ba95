"""Score-matching objectives against closed forms, each other, and their minimisers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from sno_dist.diffusion.change import push_score
from sno_dist.diffusion.divergence import divergence, probed
from sno_dist.diffusion.maps.automatic import Automatic
from sno_dist.diffusion.maps.map import Map
from sno_dist.diffusion.maps.simplex import additive_log_ratio
from sno_dist.diffusion.matching import generalised, generalised_probed, implicit, sliced

# torch's forward mode loads a part of torch that torch itself has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")

PRECISION = torch.tensor([[1.5, -0.4], [-0.4, 0.8]], dtype=torch.float64)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def linear(theta: Tensor) -> Callable[[Tensor], Tensor]:
    """The Gaussian score of a precision matrix, (4,) row by row."""
    return lambda x: -x @ theta.reshape(2, 2).T


def curved(theta: Tensor) -> Callable[[Tensor], Tensor]:
    """A score that is no gradient and no polynomial."""
    return lambda x: (x @ theta.reshape(2, 2)).sin() - 0.3 * x * x.flip(1)


def signed_axes(x: Tensor) -> list[Tensor]:
    """Probes whose average outer product is the identity, exactly."""
    axes = torch.eye(x.shape[1]).to(x) * x.shape[1] ** 0.5
    return [axis.expand_as(x) for axis in axes]


def close(found: Tensor, expected: Tensor, atol: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)


# -------------------------------------------------------------------------- one formula each


def test_a_probe_sees_the_quadratic_form_of_the_jacobian() -> None:
    x, probe = normals(6, 2).requires_grad_(), normals(6, 2, seed=1)
    field = curved(normals(4, seed=2))
    jacobian = torch.func.vmap(torch.func.jacrev(lambda p: field(p[None])[0]))(x)
    close(probed(field(x), x, probe), torch.einsum("ni,nij,nj->n", probe, jacobian, probe))
    close(divergence(field(x), x), torch.einsum("nii->n", jacobian))


def test_implicit_matching_of_a_gaussian() -> None:
    x = normals(9, 2)
    expected = 0.5 * (x @ PRECISION).square().sum(1) - PRECISION.trace()
    close(implicit(linear(PRECISION.flatten()), x), expected)


def test_sliced_matching_averages_to_implicit_matching() -> None:
    x, score = normals(9, 2), curved(normals(4, seed=2))
    found = torch.stack([sliced(score, x, probe) for probe in signed_axes(x)])
    close(found.mean(0), implicit(score, x))


def test_a_linear_projection_is_sliced_matching() -> None:
    x, score, probe = normals(9, 2), curved(normals(4, seed=2)), normals(9, 2, seed=3)
    leaf = x.clone().requires_grad_()
    found = score(leaf)
    plain = 0.5 * (probe * found).sum(1).square() + probed(found, leaf, probe)
    close(generalised(score, x, lambda _: probe), plain, 0)
    close(generalised_probed(score, x, lambda _, e: e, probe), sliced(score, x, probe), 0)


def test_a_known_divergence_of_the_field_is_used() -> None:
    x, score = normals(9, 2), curved(normals(4, seed=2))
    computed = generalised(score, x, lambda x: x * x[:, :1].square())
    known = x[:, 0] ** 2 * 4
    close(generalised(score, x, lambda x: x * x[:, :1].square(), field_divergence=known), computed)
    probe = normals(9, 2, seed=1)
    free = generalised_probed(score, x, lambda x, e: x * e, probe)
    given = generalised_probed(score, x, lambda x, e: x * e, probe, field_divergence=probe.sum(1))
    close(given, free)


# ------------------------------------------------------------- the same thing in other coordinates


def test_the_score_of_one_coordinate() -> None:
    """w = grad v / |grad v|^2: score matching of v's own law, but for what no score changes."""

    def field(x: Tensor) -> Tensor:
        slope = torch.stack([x[:, 0] + 2, x[:, 0].cos() + x[:, 1] ** 2 + 1.5], 1)
        return slope / slope.square().sum(1, keepdim=True)

    def of_coordinate(score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        own = field(x)
        psi = (own * score(x)).sum(1) + divergence(own, x, graph=True)
        (slope,) = torch.autograd.grad(psi.sum(), x)
        return 0.5 * psi.square() + (own * slope).sum(1)

    x = normals(9, 2)
    scores = [curved(normals(4, seed=seed)) for seed in (1, 2)]
    ours = generalised(scores[0], x, field) - generalised(scores[1], x, field)
    close(ours, of_coordinate(scores[0], x) - of_coordinate(scores[1], x), 1e-13)


def twisted(x: Tensor) -> Tensor:
    return torch.stack([x[0] + 0.3 * x[1].sin(), (0.5 * x[1]).exp() + 0.2 * x[0]])


@pytest.mark.parametrize("phi", [Automatic(twisted), additive_log_ratio(2)])
def test_along_the_columns_of_the_inverse_jacobian_it_is_matching_in_y(phi: Map) -> None:
    """Sum over k of w = J^-1 e_k is implicit matching of s_y, but for what no score changes."""

    def in_y(score: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        x = x.clone().requires_grad_()
        pushed = push_score(phi, x, score(x))
        rows = [torch.autograd.grad(s.sum(), x, retain_graph=True)[0] for s in pushed.T]
        slopes = torch.stack(rows, 1)  # d s_y / d x; times J^-1 it is d s_y / d y
        inverse = torch.stack(
            [phi.inverse_jvp(x, axis.expand_as(x)) for axis in torch.eye(2).to(x)], 2
        )
        return 0.5 * pushed.square().sum(1) + torch.einsum("nkj,njk->n", slopes, inverse)

    x = normals(9, 2)
    scores = [curved(normals(4, seed=seed)) for seed in (1, 2)]
    expected = in_y(scores[0], x) - in_y(scores[1], x)
    axes = [axis.expand_as(x) for axis in torch.eye(2).to(x)]
    summed = [
        torch.stack(
            [generalised(score, x, lambda x, e=e: phi.inverse_jvp(x, e)) for e in axes]
        ).sum(0)
        for score in scores
    ]
    close(summed[0] - summed[1], expected)
    reduced = [
        torch.stack([generalised_probed(s, x, phi.inverse_jvp, e) for e in signed_axes(x)]).mean(0)
        for s in scores
    ]
    close(reduced[0] - reduced[1], expected)


# ------------------------------------------------------------------------------- minimisers


def gauss_hermite(count: int) -> tuple[Tensor, Tensor]:
    """Points and weights of the mean over N(0, PRECISION^-1)."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    root = torch.linalg.cholesky(PRECISION.inverse())
    grid = torch.cartesian_prod(torch.from_numpy(nodes), torch.from_numpy(nodes))
    pairs = torch.cartesian_prod(torch.from_numpy(weights), torch.from_numpy(weights)).prod(1)
    return grid @ root.T, pairs / pairs.sum()


FIELDS: list[Callable[[Tensor], Tensor]] = [
    # grad v of v = x^2 / 2 + x y, x^2 y - y^3 / 3, y^4 / 4 + x, and a rotation of them
    lambda x: torch.stack([x[:, 0] + x[:, 1], x[:, 0]], 1),
    lambda x: torch.stack([2 * x[:, 0] * x[:, 1], x[:, 0] ** 2 - x[:, 1] ** 2], 1),
    lambda x: torch.stack([torch.ones_like(x[:, 0]), x[:, 1] ** 3], 1),
    lambda x: torch.stack([-(x[:, 1] ** 2), x[:, 0]], 1),
]


def total(theta: Tensor) -> Tensor:
    points, weights = gauss_hermite(24)
    values = [(weights * generalised(linear(theta), points, field)).sum() for field in FIELDS]
    return torch.stack(values).sum()


def test_the_minimiser_over_nonlinear_fields_is_the_gaussians_precision() -> None:
    """The objective is quadratic in the precision, so one Newton step from 0 is the minimiser."""
    start = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(total(start), start)
    hessian = torch.autograd.functional.hessian(total, start.detach())
    assert isinstance(hessian, Tensor)
    close(-torch.linalg.solve(hessian, slope).reshape(2, 2), PRECISION, 1e-10)


def test_it_is_the_squared_error_along_the_field_and_a_constant() -> None:
    points, weights = gauss_hermite(24)

    def error(theta: Tensor) -> Tensor:
        gap = linear(theta)(points) + points @ PRECISION
        return torch.stack(
            [0.5 * (weights * (f(points) * gap).sum(1).square()).sum() for f in FIELDS]
        ).sum()

    first, second = normals(4, seed=1).requires_grad_(), normals(4, seed=2).requires_grad_()
    close(total(first) - total(second), error(first) - error(second), 1e-10)


def fitted_rate(x: Tensor, field: Callable[[Tensor], Tensor]) -> float:
    """The minimiser over theta of the score -theta of an exponential law."""

    def mean(theta: Tensor) -> Tensor:
        return generalised(lambda x: -theta * torch.ones_like(x), x, field).mean()

    start = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(mean(start), start)
    hessian = torch.autograd.functional.hessian(mean, start.detach())
    assert isinstance(hessian, Tensor)
    return float(-slope / hessian)


def test_a_field_that_vanishes_at_the_edge_serves_bounded_supports() -> None:
    source = np.random.default_rng(0)
    x = torch.from_numpy(source.exponential(1 / 1.7, (20_000, 1)))
    found = fitted_rate(x, lambda x: x)
    assert found == pytest.approx(float(2 * x.mean() / x.square().mean()), abs=1e-12)
    assert found == pytest.approx(1.693, abs=0.03)
    # Sliced matching loses the term at x = 0, and finds no slope at all.
    assert fitted_rate(x, torch.ones_like) == 0
