"""Maps against torch.func, closed forms and each other."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sno_dist.diffusion.maps.affine import Affine
from sno_dist.diffusion.maps.automatic import Automatic
from sno_dist.diffusion.maps.elementwise import Elementwise, box, exponential, logarithm
from sno_dist.diffusion.maps.map import Composition, Map
from sno_dist.diffusion.maps.simplex import LogRatio, additive_log_ratio, isometric_log_ratio
from sno_dist.diffusion.maps.triangular import Triangular
from sno_dist.errors import DataError, RunError

DIMS = 3

# torch's forward mode loads a part of torch that torch itself has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def twisted(x: Tensor) -> Tensor:
    """A smooth map of three numbers that is no closed form here."""
    return torch.stack(
        [
            x[0] + 0.3 * x[1].sin() + 0.1 * x[0] ** 3,
            (0.5 * x[1]).exp() + 0.2 * x[0],
            2 * x[2] + (x[0] * x[1]).tanh(),
        ]
    )


def stick(x: Tensor) -> Tensor:
    """Stick breaking: each share of what the ones before it left."""
    shares, left = [], torch.ones(()).to(x)
    for entry in x:
        shares.append(entry.sigmoid() * left)
        left = left * (-entry).sigmoid()
    return torch.stack(shares)


MATRIX = torch.tensor([[1.0, 0.3, 0.0], [-0.2, 0.8, 0.5], [0.1, 0.0, 1.5]])
MAPS: dict[str, Map] = {
    "affine": Affine(MATRIX, double(1.0, -2.0, 0.5)),
    "exponential": exponential(),
    "given": Elementwise(torch.sinh, torch.asinh),
    "box": box(double(-1.0, 0.0, 2.0), double(1.0, 0.5, 9.0)),
    "additive": additive_log_ratio(DIMS),
    "isometric": isometric_log_ratio(DIMS),
    "any_contrasts": LogRatio(normals(DIMS + 1, DIMS, seed=5)),
    "automatic": Automatic(twisted),
    "triangular": Triangular(stick),
    "composition": Composition(Affine(MATRIX, double(0.1, 0.2, 0.3)), isometric_log_ratio(DIMS)),
    "longer": Composition(Automatic(twisted), Affine(MATRIX, double(0.0, 0.0, 1.0)), box(0.0, 3.0)),
}
NAMED = pytest.mark.parametrize("phi", MAPS.values(), ids=MAPS.keys())


def oracle(phi: Map) -> Automatic:
    """The same function, of which torch.func makes everything."""
    return Automatic(lambda point: phi.forward(point[None])[0])


@NAMED
def test_every_derivative_is_that_of_torch_func(phi: Map) -> None:
    x, v, w = normals(7, DIMS), normals(7, DIMS, seed=1), normals(7, 4, DIMS, seed=2)
    plain = oracle(phi)
    jacobian = plain.jacobian(x)
    hessian = torch.func.vmap(torch.func.jacfwd(torch.func.jacrev(plain.function)))(x)
    slopes = torch.einsum("nkj,njki->ni", jacobian.inverse(), hessian)
    close(phi.jvp(x, v), torch.einsum("nij,nj->ni", jacobian, v))
    close(phi.vjp(x, v), torch.einsum("nji,nj->ni", jacobian, v))
    close(phi.inverse_jvp(x, v), torch.linalg.solve(jacobian, v))
    close(phi.inverse_vjp(x, v), torch.linalg.solve(jacobian.mT, v))
    close(phi.log_det(x), torch.linalg.slogdet(jacobian).logabsdet)
    close(phi.log_det_gradient(x), slopes)
    close(phi.curvature(x, w), torch.einsum("nkij,nri,nrj->nk", hessian, w, w))
    close(phi.laplacian(x), torch.einsum("nkii->nk", hessian))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@NAMED
def test_the_inverse_undoes_the_map(phi: Map) -> None:
    x = normals(50, DIMS)
    y = phi.forward(x)
    torch.testing.assert_close(phi.inverse(y), x, rtol=0, atol=1e-11)
    assert phi.contains(y).all()


@NAMED
def test_single_precision_is_kept(phi: Map) -> None:
    x, v = normals(4, DIMS).float(), normals(4, DIMS, seed=1).float()
    double_precision = phi.inverse_vjp(x.double(), v.double())
    found = phi.inverse_vjp(x, v)
    assert {t.dtype for t in (found, phi.forward(x), phi.log_det(x), phi.laplacian(x))} == {x.dtype}
    torch.testing.assert_close(found.double(), double_precision, rtol=2e-5, atol=2e-5)


@NAMED
def test_the_divergence_of_the_diffusion_in_y(phi: Map) -> None:
    """div_y (J J') = Lap phi + J grad ln |det J|, the left side by torch.func in y."""
    x, plain = normals(5, DIMS), oracle(phi)
    jacobian = plain.jacobian(x)

    def square(point: Tensor) -> Tensor:
        own = torch.func.jacfwd(plain.function)(point)
        return own @ own.mT

    slopes = torch.func.vmap(torch.func.jacfwd(square))(x)
    in_y = torch.einsum("nijk,nkj->ni", slopes, jacobian.inverse())
    close(phi.laplacian(x) + phi.jvp(x, phi.log_det_gradient(x)), in_y)


def test_log_determinants_of_a_composition_add_up() -> None:
    first, second = MAPS["automatic"], MAPS["box"]
    x = normals(20, DIMS)
    total = first.log_det(x) + second.log_det(first.forward(x))
    close(Composition(first, second).log_det(x), total)


def test_no_maps_are_the_identity() -> None:
    x, v = normals(3, DIMS), normals(3, DIMS, seed=1)
    none = Composition()
    assert torch.equal(none.inverse_vjp(x, v), v)
    assert torch.equal(none.forward(x), x)
    assert none.log_det(x).tolist() == [0, 0, 0]
    assert not none.laplacian(x).any()


# ----------------------------------------------------------------------------- simplex


def test_the_additive_log_ratio_in_closed_form() -> None:
    phi, x = additive_log_ratio(DIMS), normals(20, DIMS)
    y = phi.forward(x)
    last = 1 - y.sum(1, keepdim=True)
    close(x, (y / last).log())
    close(phi.log_det(x), y.log().sum(1) + last.log()[:, 0])
    close(phi.log_det_gradient(x), 1 - (DIMS + 1) * y)
    squares = y.square().sum(1, keepdim=True)
    close(phi.laplacian(x), y * (last - 2 * y + 2 * squares))
    v = normals(20, DIMS, seed=1)
    close(phi.inverse_vjp(x, v), v / y + v.sum(1, keepdim=True) / last)


@pytest.mark.parametrize("dims", [1, 2, 7])
def test_the_isometric_log_ratio_in_closed_form(dims: int) -> None:
    phi, x = isometric_log_ratio(dims), normals(20, dims)
    basis = phi.basis
    close(basis.T @ basis, torch.eye(dims, dtype=torch.float64))
    close(basis.sum(0), torch.zeros(dims, dtype=torch.float64))
    shares = phi.shares(x)
    close(phi.log_det(x), 0.5 * math.log(dims + 1) + shares.log().sum(1))
    close(phi.log_det_gradient(x), -(dims + 1) * shares @ basis)
    close(phi.laplacian(x), 2 * shares[:, :-1] * (shares.square().sum(1)[:, None] - shares[:, :-1]))


def test_it_treats_all_shares_alike() -> None:
    """Distances between log-ratios do not change when shares change places, unlike ALR's."""
    x = normals(2, DIMS)
    for phi, alike in ((isometric_log_ratio(DIMS), True), (additive_log_ratio(DIMS), False)):
        turned = phi.shares(x).roll(1, 1)[:, :-1]
        before, after = (
            (x[0] - x[1]).norm(),
            (phi.inverse(turned)[0] - phi.inverse(turned)[1]).norm(),
        )
        assert (abs(float(before - after)) < 1e-12) is alike


def test_shares_near_zero_keep_their_derivatives() -> None:
    """At y = 1e-40 the last share is 1 - 1 = 0 in y, and the score is still right at x."""
    phi, x = additive_log_ratio(2), double(90.0, 0.0)[None]
    assert float(1 - phi.forward(x).sum()) <= 0
    v = double(0.0, 1.0)[None]
    close(phi.jvp(x, phi.inverse_jvp(x, v)) / v.norm(), v)
    assert float(phi.log_det(x)) == pytest.approx(-180, abs=1e-9)


# ------------------------------------------------------------------------------- edges


def test_what_an_image_contains() -> None:
    rows = double(0.2, 0.3, 0.2, -0.1, 0.6, 0.5, 0.0, 0.5).reshape(4, 2)
    assert additive_log_ratio(2).contains(rows).tolist() == [True, False, False, False]
    assert box(0.0, 0.5).contains(rows).tolist() == [True, False, False, False]
    assert exponential().contains(rows).tolist() == [True, False, True, False]
    assert logarithm().contains(rows).all()
    # ln of exp's image is everything, that of the simplex is not: each map's image counts.
    inner = Composition(additive_log_ratio(2), logarithm())
    assert inner.contains(rows.log()).tolist() == [True, False, False, False]


def test_an_image_may_be_told() -> None:
    def simplex(y: Tensor) -> Tensor:
        return (y > 0).all(1) & (y.sum(1) < 1)

    rows = double(0.2, 0.3, 0.2, -0.1, 0.6, 0.5, 0.1, 0.5).reshape(4, 2)
    sticks = Triangular(stick, contains=simplex)
    assert sticks.contains(rows).tolist() == [True, False, False, True]
    # What is not in the last map's image has no inverse to look for in the ones before.
    twice = Composition(sticks, Automatic(lambda x: x + 0.1 * x**3))
    assert twice.contains(twice.forward(normals(3, 2))).all()
    assert Composition(logarithm(), sticks).contains(rows).tolist() == [True, False, False, True]
    assert not Composition(logarithm(), sticks).contains(rows[1:3]).any()


def test_a_box_keeps_its_volume_far_out() -> None:
    """At x = 200 the logistic's slope is below the smallest float32, its logarithm is not."""
    x = torch.tensor([[200.0, -200.0]])
    assert box(0.0, 1.0).log_det(x).tolist() == [-400.0]


def test_an_inverse_is_found_from_afar() -> None:
    """Newton's full step overshoots on an arctangent from 1.4 outward; backtracking does not."""
    phi = Automatic(lambda x: x.atan() + 0.01 * x)
    x = torch.linspace(-30, 30, 61, dtype=torch.float64)[:, None]
    torch.testing.assert_close(phi.inverse(phi.forward(x)), x, rtol=0, atol=1e-9)


def test_a_given_inverse_is_used() -> None:
    phi = Automatic(torch.exp, torch.log)
    y = double(1e-9, 1e9)[:, None]
    assert torch.equal(phi.inverse(y), y.log())


@pytest.mark.parametrize("kind", [Automatic, Triangular])
def test_what_is_outside_the_image_cannot_be_inverted(kind: type[Automatic]) -> None:
    y = double(1.0, 2.0, -3.0)[:, None]
    with pytest.raises(RunError) as caught:
        kind(torch.exp).inverse(y)
    for words in ("the map could not be inverted", "1 of 3 points missed", "[-3.0]", "a guess"):
        assert words in str(caught.value)


def test_a_triangular_map_that_is_none_is_told() -> None:
    swapped = Triangular(lambda x: x.flip(0) ** 3 + x)
    with pytest.raises(RunError, match="could not be inverted"):
        swapped.inverse(normals(3, 2))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Affine(torch.ones(2, 2), torch.zeros(2)), "no inverse | got: rank 1"),
        (lambda: Affine(torch.eye(3), torch.zeros(2)), "does not fit its shift | got: (3, 3)"),
        (lambda: box(double(0.0, 1.0), double(1.0, 1.0)), "above the lower one"),
        (lambda: LogRatio(torch.eye(3)), "one row more than columns | got: (3, 3)"),
        (lambda: LogRatio(torch.ones(3, 2)), "contrasts of rank 0 | expected: rank 2"),
    ],
)
def test_maps_that_have_no_inverse_are_refused(make, message: str) -> None:
    with pytest.raises(DataError) as caught:
        make()
    assert message in str(caught.value)
