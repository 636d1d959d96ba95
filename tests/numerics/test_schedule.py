"""Schedules: printed values, and the identity between (alpha, sigma) and (f, g)."""

from __future__ import annotations

import pytest
import torch

from sno_dist.diffusion.schedule import (
    Schedule,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
    level,
)

SCHEDULES = [VarianceExploding(25.0), VariancePreserving(), SubVariancePreserving()]


def at(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def test_printed_values() -> None:
    exploding, preserving, sub = SCHEDULES
    assert float(exploding.sigma(at(0.5))) == pytest.approx(1.9308054, rel=1e-7)
    assert float(exploding.sigma(at(1.0))) == pytest.approx(9.8452146, rel=1e-7)
    assert float(preserving.alpha(at(1.0))) == pytest.approx(0.0065715865, rel=1e-7)
    assert float(preserving.sigma(at(0.5))) == pytest.approx(0.9596542, rel=1e-7)
    assert float(sub.sigma(at(0.5))) == pytest.approx(0.92093619, rel=1e-7)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_diffusion_follows_from_alpha_and_sigma(schedule: Schedule) -> None:
    # g^2 = (sigma^2)' - 2 f sigma^2 and f = alpha' / alpha, by automatic differentiation
    t = torch.linspace(0.01, 1, 50, dtype=torch.float64, requires_grad=True)
    (variance_rate,) = torch.autograd.grad(schedule.sigma(t).square().sum(), t)
    # 0 t: a constant alpha has no graph of its own
    (log_alpha_rate,) = torch.autograd.grad((schedule.alpha(t).log() + 0 * t).sum(), t)
    f = schedule.drift(t)
    torch.testing.assert_close(f, log_alpha_rate, rtol=1e-9, atol=1e-9)
    g2 = variance_rate - 2 * f * schedule.sigma(t).square()
    torch.testing.assert_close(schedule.diffusion(t), g2, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_time_inverts_level(schedule: Schedule) -> None:
    t = torch.logspace(-5, 0, 60, dtype=torch.float64)
    torch.testing.assert_close(schedule.time(level(schedule, t)), t, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_float32_keeps_its_digits_near_zero(schedule: Schedule) -> None:
    t = torch.tensor([1e-5, 1e-4, 1e-3], dtype=torch.float64)
    torch.testing.assert_close(
        schedule.sigma(t.float()).double(), schedule.sigma(t), rtol=1e-5, atol=0
    )
