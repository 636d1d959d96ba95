"""The closed-form base: exact for Gaussian distributions, and plain preconditioning untold."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sno_dist.diffusion.schedule import VarianceExploding, VariancePreserving, level
from sno_dist.model.latent import LatentMoments, latent_sums
from sno_dist.score.base import GaussianBase
from sno_dist.score.preconditioned import PreconditionedScore

DIMS = 3
WITHIN = torch.tensor([0.9, 0.3, 0.05], dtype=torch.float64)
BETWEEN = torch.tensor([0.1, 0.7, 0.4], dtype=torch.float64)


def rotation(seed: int = 0) -> Tensor:
    source = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(DIMS, DIMS, generator=source, dtype=torch.float64))[0]


def fitted(basis: Tensor) -> GaussianBase:
    base = GaussianBase(DIMS).double()
    base.update(basis * WITHIN @ basis.T, basis * BETWEEN @ basis.T, 1.0)
    return base


class Silent(nn.Module):
    """A network that says nothing, and remembers what it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros((), dtype=torch.float64))
        self.told = torch.zeros(0)

    def forward(self, u: Tensor, x: Tensor, c: Tensor) -> Tensor:
        del c
        self.told = u
        return self.weight * x


@pytest.mark.parametrize("count", [0.0, 1.0, 7.0, 1e6])
@pytest.mark.parametrize("schedule", [VariancePreserving(0.1, 20.0), VarianceExploding(25.0)])
def test_the_score_of_gaussian_populations_is_exact(
    schedule: VariancePreserving | VarianceExploding, count: float
) -> None:
    # x | samples is N(E[mean | samples], C + Cov(mean | samples)), by the normal equations
    basis = rotation()
    within, between = basis * WITHIN @ basis.T, basis * BETWEEN @ basis.T
    mean = torch.tensor([0.4, -1.0, 0.7], dtype=torch.float64)
    posterior = torch.linalg.inv(torch.linalg.inv(between) + count * torch.linalg.inv(within))
    centre = posterior @ (count * torch.linalg.inv(within) @ mean)
    law = torch.distributions.MultivariateNormal
    x = torch.randn(5, DIMS, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t = torch.tensor([1e-3, 0.1, 0.4, 0.8, 1.0], dtype=torch.float64)
    model = PreconditionedScore(Silent(), schedule, "edm", fitted(basis))
    statistic = fitted(basis).statistic(mean[None], torch.tensor([count], dtype=torch.float64))
    u = torch.cat([torch.full((1, 2), 9.0), statistic], 1).expand(5, -1)
    found = model.score(u, x, t)
    for row, (alpha, sigma) in enumerate(zip(schedule.alpha(t), schedule.sigma(t), strict=True)):
        spread = alpha**2 * (within + posterior) + sigma**2 * torch.eye(DIMS, dtype=torch.float64)
        point = x[row].clone().requires_grad_()
        (exact,) = torch.autograd.grad(law(alpha * centre, spread).log_prob(point), point)
        torch.testing.assert_close(found[row], exact, rtol=1e-9, atol=1e-9)
    assert model.network.told.shape == (5, 2)  # pyright: ignore


def test_nothing_known_of_a_standard_population_is_the_plain_preconditioning() -> None:
    base = GaussianBase(DIMS).double()  # C = B = I / 2, so that C + B = I
    schedule = VariancePreserving(0.1, 20.0)
    x = torch.randn(6, DIMS, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    t = torch.linspace(0.01, 1, 6, dtype=torch.float64)
    network = Silent()
    network.weight.data.fill_(0.7)
    plain = PreconditionedScore(network, schedule, "edm").score(torch.zeros(6, 2), x, t)
    with_base = PreconditionedScore(network, schedule, "edm", base)
    torch.testing.assert_close(with_base.score(torch.zeros(6, 2 + base.size), x, t), plain)


def test_what_is_left_for_the_network_has_unit_variance() -> None:
    basis, schedule = rotation(), VarianceExploding(25.0)
    base, source = fitted(basis), torch.Generator().manual_seed(3)
    normals = torch.randn(3, 200_000, DIMS, generator=source, dtype=torch.float64)
    clean = (normals[0] * (WITHIN + BETWEEN).sqrt()) @ basis.T
    t = torch.full((len(clean),), 0.35, dtype=torch.float64)
    r = level(schedule, t)
    x = clean + r[:, None] * normals[1]
    told = base(torch.zeros(len(x), base.size), x, r, torch.zeros_like(x))
    one = torch.eye(DIMS, dtype=torch.float64)
    # F enters linearly: its gain is read off unit outputs
    gain = -torch.stack(
        [base(torch.zeros(1, base.size), x[:1], r[:1], row[None])[0] - told[0] for row in one], 1
    )
    target = torch.linalg.solve(gain, (told - normals[1]).T).T
    torch.testing.assert_close(target.T @ target / len(x), one, rtol=0, atol=0.02)


def test_covariances_come_from_sums_that_merge() -> None:
    basis, source = rotation(1), torch.Generator().manual_seed(4)
    count, targets = 20_000, 4
    means = torch.randn(count, 1, DIMS, generator=source, dtype=torch.float64) * BETWEEN.sqrt()
    noise = torch.randn(count, targets, DIMS, generator=source, dtype=torch.float64)
    latents = (means + noise * WITHIN.sqrt()) @ basis.T + 0.5
    sums = sum(latent_sums(part, products=True) for part in latents.split(7_000))
    assert isinstance(sums, Tensor)
    torch.testing.assert_close(sums, latent_sums(latents, products=True))
    found = LatentMoments.of(sums, DIMS, count, targets)
    assert found.within is not None
    assert found.between is not None
    torch.testing.assert_close(found.within, basis * WITHIN @ basis.T, rtol=0, atol=0.02)
    torch.testing.assert_close(found.between, basis * BETWEEN @ basis.T, rtol=0, atol=0.02)
    torch.testing.assert_close(found.mean, torch.full((DIMS,), 0.5).double(), rtol=0, atol=0.02)
    whole = latents.flatten(0, 1).var(0, correction=0)
    torch.testing.assert_close(found.variance, whole)


@pytest.mark.parametrize("count", [2, 3])
def test_covariances_of_batches_of_few_distributions_are_unbiased(count: int) -> None:
    targets, source = 4, torch.Generator().manual_seed(7)
    shape = (20_000, count, targets, DIMS)
    means = torch.randn(*shape[:2], 1, DIMS, generator=source, dtype=torch.float64)
    noise = torch.randn(*shape, generator=source, dtype=torch.float64)
    found = [
        LatentMoments.of(latent_sums(own, products=True), DIMS, count, targets).between
        for own in means * BETWEEN.sqrt() + noise * WITHIN.sqrt()
    ]
    between = torch.stack([own for own in found if own is not None]).mean(0)
    torch.testing.assert_close(between, torch.diag(BETWEEN), rtol=0, atol=0.04)


def test_directions_that_are_not_measured_do_not_divide_by_nought() -> None:
    base = GaussianBase(DIMS)
    nothing = torch.zeros(DIMS, DIMS, dtype=torch.float64)
    base.update(nothing, nothing - torch.eye(DIMS), 1.0)
    x = torch.randn(4, DIMS, generator=torch.Generator().manual_seed(5))
    statistic = base.statistic(x, torch.tensor([0.0, 1.0, 2.0, 1e6]))
    for noise in (1e-5, 1.0, 1e4):
        assert bool(base(statistic, x, torch.full((4,), noise), x).isfinite().all())
