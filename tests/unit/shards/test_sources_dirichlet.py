from __future__ import annotations

import numpy as np
import pytest

from sno_dist.config.schema import Dirichlet, Split
from sno_dist.shards.sources.dirichlet import DirichletSource, Law, dirichlet_source
from sno_dist.shards.sources.factory import make_source


def make(seed: int = 0, **settings: object) -> DirichletSource:
    values = {"seen": 4, "unseen": 2, **settings}
    return dirichlet_source(Dirichlet(kind="dirichlet", **values), Split(seed=seed))  # pyright: ignore


def moments(law: Law) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of a mixture in closed form."""
    own, weights = law.concentrations, law.weights
    totals = own.sum(1)
    mean = weights @ (own / totals[:, None])
    second = [
        (np.outer(a, a) + np.diag(a)) / (total * (total + 1))
        for a, total in zip(own, totals, strict=True)
    ]
    return mean, np.tensordot(weights, second, 1) - np.outer(mean, mean)


@pytest.mark.parametrize("shares", [2, 3, 8])
def test_samples_have_the_moments_of_their_law(shares: int) -> None:
    source = make(shares=shares, model=20_000)
    for distribution in source.distributions():
        law = source.law(distribution.name)
        mean, covariance = moments(law)
        y = source.draw(distribution.name, "model").astype(np.float64)
        # Five standard errors: of the mean by the exact variance, of products by their own.
        deviation = np.sqrt(np.diag(covariance) / len(y))
        assert (np.abs(y.mean(0) - mean) < 5 * deviation).all()
        products = np.einsum("ni,nj->nij", y - mean, y - mean)
        error = products.std(0) / np.sqrt(len(y))
        assert (np.abs(products.mean(0) - covariance) < 5 * error).all()


def test_samples_are_compositions() -> None:
    source = make(shares=8, model=20_000)
    for distribution in source.distributions():
        y = source.draw(distribution.name, "model")
        assert (y.dtype, y.shape) == (np.float32, (20_000, 8))
        assert y.min() > 0
        assert np.abs(y.astype(np.float64).sum(1) - 1).max() < 1e-6


def test_the_density_integrates_to_one_and_has_the_laws_mean() -> None:
    source = make()
    nodes, weights = np.polynomial.legendre.leggauss(60)
    at = (nodes + 1) / 2
    # Nodes crowd at the edges, where powers of shares have no derivative.
    axis, weights = at**3 * (10 - 15 * at + 6 * at**2), 15 * weights * at**2 * (1 - at) ** 2
    first, rest = (part.ravel() for part in np.meshgrid(axis, axis))
    y = np.stack([first, (1 - first) * rest, (1 - first) * (1 - rest)], 1)
    masses = np.outer(weights, weights).ravel() * (1 - first)
    for distribution in source.distributions():
        law = source.law(distribution.name)
        density = np.exp(law.log_density(y))
        assert masses @ density == pytest.approx(1, abs=1e-10)
        assert (masses * density) @ y == pytest.approx(moments(law)[0], abs=1e-10)


def test_the_density_of_a_uniform_law() -> None:
    law = Law(weights=np.ones(1), concentrations=np.ones((1, 4)))
    y = np.array([[0.1, 0.2, 0.3, 0.4], [0.97, 0.01, 0.01, 0.01]])
    # one over the volume, which is 1 / 3!
    assert np.exp(law.log_density(y)) == pytest.approx([6.0, 6.0], rel=1e-12)


def test_parameters_have_the_law_that_they_are_drawn_from() -> None:
    source = make(seen=200, components=5, concentration=(10.0, 60.0))
    laws = [source.law(d.name) for d in source.distributions()]
    totals = np.concatenate([law.concentrations.sum(1) for law in laws]) - source.shares
    assert totals.min() > 10
    assert totals.max() < 60
    # of ln c, uniform: the mean within five standard errors
    expected, width = np.log(600) / 2, np.log(6)
    assert abs(np.log(totals).mean() - expected) < 5 * width / np.sqrt(12 * len(totals))
    assert all(law.concentrations.min() > 1 for law in laws)
    weights = np.array([law.weights for law in laws])
    assert np.abs(weights.sum(1) - 1).max() < 1e-12
    # E w^2 of Dirichlet(2, ..., 2) is 2 (2 + 1) / (10 (10 + 1))
    squares = np.square(weights).mean(1)
    assert abs(squares.mean() - 6 / 110) < 5 * squares.std() / np.sqrt(len(laws))


def test_roles_splits_and_seeds() -> None:
    section = Dirichlet(kind="dirichlet", seen=4, unseen=2)
    source = make_source(section, Split())
    assert (source.domain, source.shape) == ("vector", (3,))
    assert tuple(source.roles) == ("model", "reference")
    assert [d.split for d in source.distributions()] == ["seen"] * 4 + ["unseen"] * 2
    assert len({d.name for d in source.distributions()}) == 6
    name = source.distributions()[0].name
    model, reference = source.draw(name, "model"), source.draw(name, "reference")
    assert not set(map(tuple, model.tolist())) & set(map(tuple, reference.tolist()))
    assert (make_source(section, Split()).draw(name, "model") == model).all()
    assert not (make_source(section, Split(seed=1)).draw(name, "model") == model).any()
    assert source.audit() == {"laws": {"seen": 4, "unseen": 2}, "seen_and_unseen": 0}


def test_more_laws_leave_those_before_them_as_they_are() -> None:
    few, many = make(seen=4), make(seen=40)
    for distribution in few.distributions():
        found = few.draw(distribution.name, "model"), many.draw(distribution.name, "model")
        assert (found[0] == found[1]).all()
