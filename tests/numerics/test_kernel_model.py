"""Kernel models: fits against closed forms and scikit-learn, invariances, traps, small sets."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from scipy.special import logsumexp
from sklearn.datasets import make_moons
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture as Oracle
from torch import Tensor

from sno_dist.diffusion.covariance import CholeskyPrecision, LowRank
from sno_dist.diffusion.gaussian_mixture import GaussianMixture
from sno_dist.errors import DataError
from sno_dist.score.kernel.centres import Centres, Choice, bandwidths, choose_centres, coincident
from sno_dist.score.kernel.descent import Descent, losses
from sno_dist.score.kernel.em import (
    Prior,
    expectation_maximisation,
    features,
    maximise,
    natural,
    penalty,
)
from sno_dist.score.kernel.model import KernelFit, Method, fit_kernel_models
from sno_dist.score.kernel.precisions import Form
from sno_dist.score.kernel.sets import ContextSets, Members
from sno_dist.score.kernel.stacking import stacking_share
from sno_dist.score.memorisation import memorisation

METHODS: tuple[Method, ...] = ("em", "likelihood", "implicit")
FORMS: tuple[Form, ...] = ("full", "diagonal", "low_rank")


def moons(count: int, noise: float, seed: int) -> Tensor:
    return torch.from_numpy(make_moons(count, noise=noise, random_state=seed)[0])


def sources(count: int, first: int = 0) -> list[np.random.Generator]:
    return [np.random.default_rng(first + item) for item in range(count)]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def how(method: Method, **settings: object) -> KernelFit:
    """A fit of few steps."""
    descent = Descent(steps=20, batch=32)
    return KernelFit(
        **{"method": method, "per_centre": (20, 8), "members": 2}
        | {"descent": descent, "width": 8, **settings}
    )  # pyright: ignore[reportArgumentType]


# ------------------------------------------------------------- expectation-maximisation


def shares_of(samples: Tensor, count: int) -> Tensor:
    """Odds of components that no fit has seen yet."""
    return normal(*samples.shape[:2], count, seed=5).softmax(2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("strength", [1e-9, 3.0])
def test_each_step_raises_likelihood_and_prior_together(form: Form, strength: float) -> None:
    samples = torch.stack([moons(150, 0.1, seed) for seed in range(3)])
    samples = torch.cat([samples, normal(3, 150, 1)], 2)
    prior = Prior(torch.tensor([0.01, 0.1, 1.0]).double(), strength)
    known, shares = features(samples, form), shares_of(samples, 5)
    told = []
    for _ in range(25):
        mixture = maximise(known, shares, prior=prior, form=form, rank=1)
        told.append(mixture.log_density(samples).sum(1) + penalty(mixture, prior))
        shares = mixture.shares(samples)
    rises = torch.stack(told).diff(dim=0)
    assert float(rises.min()) > -1e-9
    assert float((told[-1] - told[0]).min()) > 1


@pytest.mark.parametrize("form", ["full", "diagonal"])
def test_it_goes_step_by_step_where_scikit_learn_goes(form: Form) -> None:
    samples = moons(200, 0.1, 0)
    prior = Prior(torch.ones(1).double(), 0.0)
    mixture = maximise(
        features(samples[None], form), shares_of(samples[None], 4), prior=prior, form=form, rank=1
    )
    unit = torch.eye(2).double()[:, None].expand(1, -1, 4, -1)
    precision = mixture.covariance.pull(unit)[0].transpose(0, 1)
    if form == "diagonal":
        precision = precision.diagonal(dim1=1, dim2=2)
    oracle = Oracle(
        4,
        covariance_type="full" if form == "full" else "diag",
        reg_covar=0,
        tol=0,
        max_iter=8,
        weights_init=mixture.log_weights[0].exp().numpy(),
        means_init=mixture.centres[0, 0].numpy(),
        precisions_init=precision.numpy(),
    )
    with pytest.warns(match="did not converge"):
        oracle.fit(samples.numpy())
    for _ in range(8):
        shares = mixture.shares(samples[None])
        mixture = maximise(features(samples[None], form), shares, prior=prior, form=form, rank=1)
    np.testing.assert_allclose(mixture.log_weights[0].exp(), oracle.weights_, rtol=1e-9)
    np.testing.assert_allclose(mixture.centres[0, 0], oracle.means_, rtol=1e-9)
    grid = normal(50, 2, seed=2)
    found = mixture.log_density(grid[None])[0]
    np.testing.assert_allclose(found, oracle.score_samples(grid.numpy()), rtol=1e-9)


def test_low_rank_is_probabilistic_principal_components() -> None:
    samples = normal(300, 5) @ normal(5, 5, seed=1)
    prior = Prior(torch.ones(1).double(), 0.0)
    one = torch.ones(1, 300, 1).double()
    mixture = maximise(
        features(samples[None], "low_rank"), one, prior=prior, form="low_rank", rank=2
    )
    assert isinstance(mixture.covariance, LowRank)
    factor = mixture.covariance.factor[0, 0, 0]
    found = torch.diag(mixture.covariance.variances[0, 0, 0]) + factor @ factor.T
    oracle = PCA(2).fit(samples.numpy()).get_covariance() * 299 / 300
    np.testing.assert_allclose(found, oracle, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_a_product_of_features_is_the_density(form: Form) -> None:
    samples = normal(2, 60, 3)
    prior = Prior(torch.ones(2).double(), 1.0)
    mixture = maximise(
        features(samples, form), shares_of(samples, 4), prior=prior, form=form, rank=2
    )
    product = (features(samples, form) @ natural(mixture, form).mT).logsumexp(2)
    torch.testing.assert_close(product, mixture.log_density(samples), rtol=0, atol=1e-11)


def test_the_step_kept_is_the_best_on_what_was_left_out() -> None:
    sets = ContextSets.of([moons(120, 0.05, seed) for seed in range(3)])
    members = Members.of(sets, 2, 0.2, 10, sources(3))
    uniform = torch.from_numpy(np.random.default_rng(0).random((6, 20)))
    counts = torch.full((6,), 20)
    centres = choose_centres(members.samples, members.fitted, counts, "kmeans", uniform)
    prior = Prior(torch.full((6,), 1e-5).double(), 0.1)
    told = []
    for steps in range(1, 12):
        mixture, loss = expectation_maximisation(
            members, centres, prior, form="full", rank=1, steps=steps, patience=100
        )
        density = -mixture.log_density(members.held_out).mean(1)
        torch.testing.assert_close(density, loss, rtol=1e-9, atol=1e-9)
        told.append(loss)
    assert float(torch.stack(told).diff(dim=0).max()) <= 1e-12
    # with so weak a prior more steps do harm somewhere
    assert bool((told[-1] == told[-2]).any())


@pytest.mark.parametrize("seed", range(3))
def test_mixtures_beat_the_isotropic_estimate_that_the_test_set_would_choose(seed: int) -> None:
    train, test = moons(1000, 0.02, seed), moons(3000, 0.02, 100 + seed)
    squares = torch.cdist(test, train).square()
    widths = np.geomspace(0.005, 0.5, 60)
    told = [
        float((-squares / (2 * h * h)).logsumexp(1).mean()) - math.log(2000 * math.pi * h * h)
        for h in widths
    ]
    assert 0 < int(np.argmax(told)) < len(widths) - 1
    oracle = Oracle(32, reg_covar=1e-4, random_state=seed).fit(train.numpy())
    assert oracle.score(test.numpy()) > max(told) + 0.03
    mixture = fit_kernel_models([train], sources(1, seed), KernelFit(kernels=False))
    assert float(mixture.log_density(test[None]).mean()) > max(told) + 0.03


# ------------------------------------------------------------------------------ descent


def test_the_implicit_loss_is_least_at_the_law_itself() -> None:
    # samples of N(0, S) by Gauss-Hermite nodes, exact for the quadratic of one Gaussian's loss
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    grid = torch.from_numpy(np.array(list(itertools.product(nodes, nodes))))
    weight = torch.from_numpy(np.outer(weights, weights).ravel() / weights.sum() ** 2)
    precision = torch.tensor([[1.5, -0.4], [-0.4, 0.8]]).double()
    factor = torch.linalg.cholesky(precision)
    samples = torch.linalg.solve_triangular(factor.T, grid.T, upper=True).T

    def loss(lower: Tensor) -> Tensor:
        mixture = GaussianMixture(
            log_weights=torch.zeros(1, 1).double(),
            centres=torch.zeros(1, 1, 1, 2).double(),
            covariance=CholeskyPrecision(lower[None, None, None]),
        )
        return (weight * mixture.at(samples[None]).implicit_loss()[0]).sum()

    lower = factor.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(lower), lower)
    assert float(slope.tril().abs().max()) < 1e-12
    assert float(loss(factor)) == pytest.approx(-float(precision.trace()), rel=1e-12)
    for change in (0.1, -0.1):
        assert float(loss(factor + change * torch.eye(2).double())) > float(loss(factor)) + 1e-3


@pytest.mark.parametrize("method", ["likelihood", "implicit"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("width", [16, 0])
def test_a_descent_leaves_the_kernel_estimate_behind(
    method: Method, form: Form, width: int
) -> None:
    train, test = moons(400, 0.03, 0), moons(1000, 0.03, 1)[None]

    def fitted(steps: int) -> GaussianMixture:
        return fit_kernel_models(
            [train],
            sources(1),
            how(
                method,
                form=form,
                width=width,
                per_centre=(16,),
                kernels=False,
                descent=Descent(steps=steps, learning_rate=0.01),
            ),
        )

    before, after = fitted(1), fitted(100)
    kind = "implicit" if method == "implicit" else "likelihood"
    told = [float(losses(mixture, test, kind).mean()) for mixture in (before, after)]
    assert told[1] < told[0] - (0.1 if method == "likelihood" else 10)


def test_a_centre_never_explains_a_sample_that_it_is() -> None:
    samples = moons(40, 0.05, 0)[None]
    samples = torch.cat([samples, samples[:, :3] * (1 + 1e-13)], 1)
    kernels = GaussianMixture.isotropic(samples, torch.tensor([1e-3], dtype=torch.float64))
    found = losses(kernels, samples, "likelihood")[0]
    for item in (0, 20):
        others = (samples[0] - samples[0, item]).abs().sum(1) > 1e-9
        gaps = (samples[0, others] - samples[0, item]).square().sum(1)
        logs = (-gaps / 2e-6).logsumexp(0) - math.log(2e-6 * math.pi * int(others.sum()))
        assert float(found[item]) == pytest.approx(-float(logs), rel=1e-9)


@pytest.mark.parametrize("centres", ["kmeans", "farthest", "subset", "context"])
def test_precisions_stay_bounded_where_samples_are_centres(centres: str) -> None:
    train, test = moons(60, 0.05, 0), moons(1000, 0.05, 1)[None]
    mixture = fit_kernel_models(
        [torch.cat([train, train[:5]])],  # and some of them twice
        sources(1),
        how(
            "implicit",
            centres=centres,
            width=0,
            per_centre=(2,),
            kernels=False,
            descent=Descent(steps=300, learning_rate=0.05),
        ),
    )
    assert float(mixture.covariance.trace().max()) < 1e5
    assert float(mixture.log_density(test).mean()) > -4


# -------------------------------------------------------------------------- many at once


@pytest.mark.parametrize("method", METHODS)
def test_a_set_s_model_does_not_depend_on_those_beside_it(method: Method) -> None:
    sizes = (40, 1, 97, 14, 40, 2, 63)
    sets = [moons(100, 0.1, item)[:size] for item, size in enumerate(sizes)]
    together = fit_kernel_models(sets, sources(7), how(method), pooled=0.3)
    grid = normal(30, 2)
    for item, own in enumerate(sets):
        alone = fit_kernel_models([own], [sources(7)[item]], how(method), pooled=0.3)
        torch.testing.assert_close(
            together.log_density(grid.expand(7, -1, -1))[item],
            alone.log_density(grid[None])[0],
            rtol=1e-7,
            atol=1e-7,
        )


def test_nor_does_it_where_those_end_sooner() -> None:
    sets = [moons(100, 0.1, item)[:size] for item, size in enumerate((40, 97))]
    long = how("likelihood", descent=Descent(steps=120, batch=32, patience=2))
    together = fit_kernel_models(sets, sources(2), long, pooled=0.3)
    grid = normal(30, 2)
    for item, own in enumerate(sets):
        alone = fit_kernel_models([own], [sources(2)[item]], long, pooled=0.3)
        got = together.log_density(grid.expand(2, -1, -1))[item]
        torch.testing.assert_close(got, alone.log_density(grid[None])[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("form", FORMS)
def test_units_and_origin_have_no_say(method: Method, form: Form) -> None:
    sets = [moons(size, 0.1, size) for size in (1, 5, 80)]
    grid = normal(3, 30, 2)
    here = fit_kernel_models(sets, sources(3), how(method, form=form))
    moved = [30 * own + torch.tensor([500.0, -70.0]) for own in sets]
    there = fit_kernel_models(moved, sources(3), how(method, form=form))
    found = there.log_density(30 * grid + torch.tensor([500.0, -70.0])) + 2 * math.log(30)
    torch.testing.assert_close(found, here.log_density(grid), rtol=1e-6, atol=1e-6)


def test_one_sample_is_a_gaussian_of_twice_the_pooled_variance() -> None:
    point = torch.tensor([[3.0, -1.0]]).double()
    mixture = fit_kernel_models([point], sources(1), KernelFit(), pooled=0.2)
    x = normal(1, 10, 2)
    exact = -0.5 * (x - point).square().sum(2) / 0.4 - math.log(2 * math.pi * 0.4)
    torch.testing.assert_close(mixture.log_density(x), exact, rtol=1e-12, atol=1e-12)
    # pooled over the sets at hand where nothing else is said
    wide = normal(4000, 2)
    both = fit_kernel_models([point, wide], sources(2), KernelFit(members=1))
    at_centre = float(both.log_density(torch.stack([point, point]))[0, 0])
    variance = float(wide.var(0).mean())
    assert at_centre == pytest.approx(-math.log(2 * math.pi * 2 * variance), rel=1e-9)


@pytest.mark.parametrize("centres", ["kmeans", "context"])
def test_a_small_set_is_one_gaussian_between_its_own_and_the_pooled_variance(
    centres: Choice,
) -> None:
    samples = normal(6, 2) @ torch.tensor([[1.0, 0.5], [0.0, 0.3]]).double()
    settings = KernelFit(smallest=7, strength=0.5, centres=centres)
    mixture = fit_kernel_models([samples], sources(1), settings, pooled=2.0)
    assert mixture.log_weights.shape == (1, 1)
    # (sum of squares + (kappa + 1) (1 + 1 / K) v I) / (K + kappa), kappa 4 x 0.5 x D
    squares = 5 * torch.cov(samples.T)
    own = (5 * float(squares.trace()) / 10 + 2.0) / 6
    exact = (squares + 5 * (7 / 6) * own * torch.eye(2).double()) / 10
    found = torch.linalg.inv(mixture.covariance.pull(torch.eye(2).double()[:, None][None])[0, :, 0])
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(mixture.centres[0, 0, 0], samples.mean(0))


@pytest.mark.parametrize("method", METHODS)
def test_degenerate_sets_have_a_density(method: Method) -> None:
    line = torch.linspace(0, 1, 40).double()[:, None] * torch.tensor([1.0, 2.0])
    sets = [torch.ones(30, 2), torch.ones(1, 2), torch.ones(2, 2), line, line[:2].repeat(20, 1)]
    mixture = fit_kernel_models(sets, sources(5), how(method), pooled=0.1)
    found = mixture.at(torch.stack([own[:1] + 0.01 for own in sets]))
    assert all(bool(value.isfinite().all()) for value in (found.log_density, found.score))
    # nowhere a spike: the density of a law of unit spread, or of repeated points of a prior's
    assert float(found.log_density.max()) < 15


def test_a_small_set_s_own_estimate_is_mixed_in_as_far_as_it_helps() -> None:
    sets = [moons(40, 0.03, seed) for seed in range(20)]
    test = moons(2000, 0.03, 99).expand(20, -1, -1)
    plain, helped = (
        fit_kernel_models(sets, sources(20), KernelFit(kernels=kernels)).log_density(test).mean()
        for kernels in (False, True)
    )
    assert float(helped) > float(plain) + 0.1


def test_what_cannot_be_fitted_is_told() -> None:
    one = normal(5, 2)
    for sets in ([], [one, one[:0]], [one, one[:, :1]], [one[0]]):
        with pytest.raises(DataError, match=r"context sets cannot be fitted .* one D"):
            fit_kernel_models(sets, sources(len(sets)), KernelFit())
    with pytest.raises(DataError, match="not finite"):
        fit_kernel_models([one / 0], sources(1), KernelFit())
    with pytest.raises(DataError, match="rank 2 for 2 entries"):
        fit_kernel_models([one], sources(1), KernelFit(form="low_rank", rank=2))


# ------------------------------------------------------------- centres, bandwidths, shares


def chosen(kind: str, sets: list[Tensor], count: int) -> Centres:
    padded = ContextSets.of(sets)
    uniform = torch.from_numpy(np.random.default_rng(3).random((len(sets), count)))
    return choose_centres(
        padded.samples,
        padded.mask.double(),
        torch.full((len(sets),), count),
        kind,  # pyright: ignore[reportArgumentType]
        uniform,
    )


def test_farthest_centres_are_those_that_a_search_finds() -> None:
    samples = normal(50, 2)
    found = chosen("farthest", [samples, normal(80, 2, seed=1)], 6).points[0]
    taken = [int((samples - found[0]).abs().sum(1).argmin())]
    for _ in range(5):
        taken.append(int(torch.cdist(samples, samples[taken]).amin(1).argmax()))
    assert torch.equal(found, samples[taken])


def test_what_is_held_out_is_no_centre_though_the_others_run_out() -> None:
    samples = torch.tensor([[9.0, 9.0], *[[float(i % 3), 0.0] for i in range(5)]]).double()[None]
    fitted, uniform = torch.ones(1, 6).double(), torch.rand(1, 4).double()
    fitted[0, 0] = 0
    found = choose_centres(samples, fitted, torch.tensor([4]), "farthest", uniform)
    assert (found.points[0, :, 1] == 0).all()


def test_k_means_finds_clusters_and_their_shares() -> None:
    corners = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]).double()
    sizes = (10, 20, 69)
    samples = torch.cat([c + 0.1 * normal(n, 2) for c, n in zip(corners, sizes, strict=True)])
    found = chosen("kmeans", [samples, samples[:40]], 3)
    order = torch.cdist(corners, found.points[0]).argmin(1)
    parts = samples.split(sizes)
    torch.testing.assert_close(
        found.points[0, order], torch.stack([part.mean(0) for part in parts])
    )
    shares = found.log_weights[0, order].exp()
    torch.testing.assert_close(shares, (torch.tensor(sizes).double() + 1) / 102)


def test_a_subset_is_of_distinct_samples_and_a_context_all_of_them() -> None:
    sets = [normal(30, 2), normal(7, 2, seed=1)]
    subset = chosen("subset", sets, 12)
    assert coincident(sets[0][None], subset.points[:1]).sum(1).tolist() == [[1] * 12]
    # no more centres than samples
    assert (subset.log_weights > -math.inf).sum(1).tolist() == [12, 7]
    torch.testing.assert_close(subset.log_weights[1, :7], torch.full((7,), -math.log(7)).double())
    whole = chosen("context", sets, 1)
    assert torch.equal(whole.points[0], sets[0])
    assert torch.equal(whole.points[1, :7], sets[1])


def test_the_bandwidth_is_the_likeliest_of_those_tried() -> None:
    samples = moons(90, 0.05, 0)
    centres = chosen("context", [samples, samples[:20]], 1)
    padded = ContextSets.of([samples, samples[:20]])
    deviation = torch.full((2,), 0.7, dtype=torch.float64)
    found = bandwidths(padded.samples, padded.mask.double(), centres, deviation)
    squares = cdist(samples, samples, "sqeuclidean")
    np.fill_diagonal(squares, np.inf)
    widths = 0.7 * np.geomspace(5e-3, 2, 32)
    told = [np.mean(logsumexp(-squares / (2 * h * h), 1)) - 2 * np.log(h) for h in widths]
    assert float(found[0]) == pytest.approx(widths[int(np.argmax(told))], rel=1e-12)


def test_a_share_is_where_the_likelihood_s_slope_vanishes() -> None:
    first, second = normal(4, 200), normal(4, 200, seed=1)
    told = torch.ones(4, 200).double()
    told[1, 50:] = 0
    share = stacking_share(first, second, told)[:, None]
    ratio = (second - first).exp()
    slope = (told * (ratio - 1) / (1 - share + share * ratio)).sum(1)
    assert float(slope.abs().max()) < 1e-6
    # a model that is always worse has no share, and one that is always better all of it
    assert stacking_share(first, first - 1, told).tolist() == [0.0] * 4
    assert stacking_share(first, first + 1, told).tolist() == [1.0] * 4
    assert stacking_share(first, second, 0 * told).tolist() == [0.5] * 4


# ------------------------------------------------------------------------- memorisation


def test_memorisation_of_copies_and_of_fresh_samples() -> None:
    fitted, fresh = moons(500, 0.05, 0), moons(500, 0.05, 1)
    copies = memorisation(generated=fitted, fitted=fitted, fresh=fresh)
    assert (copies.distance_ratio, copies.copies) == (0.0, 1.0)
    none = memorisation(generated=fresh, fitted=fitted, fresh=fresh)
    assert none.distance_ratio == 1.0
    assert none.copies == none.fresh_copies
    # 1 of d dimensions' balls of a third of the radius: (1 / 3)^2 in the plane
    assert none.fresh_copies == pytest.approx(1 / 9, abs=0.04)


def test_copies_of_what_was_fitted_twice_are_copies() -> None:
    fitted, fresh = moons(200, 0.05, 0).repeat(2, 1), moons(200, 0.05, 1)
    assert memorisation(generated=fitted, fitted=fitted, fresh=fresh).copies == 1


def test_a_kernel_estimate_of_a_tenth_of_its_bandwidth_memorises() -> None:
    fitted, fresh = moons(1000, 0.05, 0), moons(3000, 0.05, 1)
    sets = ContextSets.of([fitted])
    centres = choose_centres(
        sets.samples, sets.mask.double(), sets.lengths, "context", torch.zeros(1, 1)
    )
    width = bandwidths(sets.samples, sets.mask.double(), centres, torch.tensor([0.7]).double())
    rng = np.random.default_rng(0)
    uniform = torch.from_numpy(rng.random((1, 3000)))
    normals = torch.from_numpy(rng.standard_normal((1, 3000, 2)))
    spiky = GaussianMixture.isotropic(fitted[None], width / 10).sample(uniform, normals)[0]
    found = memorisation(spiky, fitted, fresh)
    assert 0.2 <= found.distance_ratio <= 0.27
    assert 0.54 <= found.copies <= 0.73
    assert 0.1 <= found.fresh_copies <= 0.14
    fit = fit_kernel_models([fitted], sources(1), KernelFit(kernels=False))
    model = memorisation(fit.sample(uniform, normals)[0], fitted, fresh)
    assert model.distance_ratio > 0.9
    assert model.copies < found.fresh_copies + 0.03


def test_memorisation_that_is_undefined_is_told() -> None:
    some = normal(5, 2)
    with pytest.raises(DataError, match="1 fitted samples"):
        memorisation(some, some[:1], some)
    with pytest.raises(DataError, match="fresh samples that are all among"):
        memorisation(some, some, some[:3])
