"""The mean noise given all possible sources: the same target, less variance."""

from __future__ import annotations

import math

import pytest
import torch

from sno_dist.diffusion.objective import posterior_noise
from sno_dist.diffusion.schedule import VarianceExploding, VariancePreserving

SCHEDULES = [VarianceExploding(25.0), VariancePreserving(0.1, 20.0)]
LAWS, SOURCES = 20_000, 16


def draw(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(shape) + sum(shape))
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_single_source_leaves_the_noise_as_it_is(schedule: VarianceExploding) -> None:
    x, noise = draw(5, 1, 3), draw(5, 1, 3) + 1
    t = torch.full((5, 1), 0.4, dtype=torch.float64)
    noised = schedule.alpha(t)[..., None] * x + schedule.sigma(t)[..., None] * noise
    torch.testing.assert_close(posterior_noise(noised, t, schedule, x), noise)


def test_two_sources_share_by_their_odds() -> None:
    schedule = SCHEDULES[0]
    t = torch.tensor([[0.3]], dtype=torch.float64)
    sigma = float(schedule.sigma(t))
    sources = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)
    noised = torch.tensor([[[0.2]]], dtype=torch.float64)
    odds = math.exp(-0.5 * (0.8**2 - 0.2**2) / sigma**2)
    expected = (0.2 - odds / (1 + odds)) / sigma
    assert float(posterior_noise(noised, t, schedule, sources)) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("time", [0.1, 0.5])
def test_the_mean_given_the_noised_sample_stays_and_the_variance_falls(
    schedule: VarianceExploding, time: float
) -> None:
    # N(0, 1) in one dimension: E[eps f(x_t)] is known for f(x) = x and x^3.
    sources, noise = draw(LAWS, SOURCES, 1), draw(LAWS, 1, 1)
    t = torch.full((LAWS, 1), time, dtype=torch.float64)
    alpha, sigma = float(schedule.alpha(t)[0]), float(schedule.sigma(t)[0])
    noised = alpha * sources[:, :1] + sigma * noise
    mean = posterior_noise(noised, t, schedule, sources)
    variance = alpha**2 + sigma**2
    for power, moment in ((1, sigma), (3, 3 * sigma * variance)):
        products = (mean * noised**power).flatten()
        error = float(products.std()) / LAWS**0.5
        assert float(products.mean()) == pytest.approx(moment, abs=4 * error)
    exact = sigma * noised / variance  # E[eps | x_t]
    assert float((mean - exact).var()) < 0.5 * float((noise - exact).var())


def test_sources_far_from_the_origin_keep_their_digits_at_small_noise() -> None:
    schedule = SCHEDULES[0]
    x = (draw(2, 40, 2) + 50).float()
    t = schedule.time(torch.full((2, 1), 1e-3))
    noise = draw(2, 1, 2).float()
    noised = x[:, :1] + schedule.sigma(t)[..., None] * noise
    found = posterior_noise(noised, t, schedule, x)
    # rounding of the sum itself, 50 * 2^-24, over sigma
    torch.testing.assert_close(found, noise, rtol=0, atol=0.01)
