"""Log densities by the probability flow against closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sno_dist.diffusion.likelihood import log_density
from sno_dist.diffusion.objective import EPSILON
from sno_dist.diffusion.schedule import (
    Schedule,
    SubVariancePreserving,
    VariancePreserving,
)
from tests.numerics.gaussians import Gaussian


class Standardised(Gaussian):
    """Unit variance and zero mean: the prior is then exact, so only the solver's error is left."""

    def __init__(self, dims: int) -> None:
        super().__init__(torch.zeros(dims).double(), torch.ones(dims).double())


def normal(x: Tensor) -> Tensor:
    return -0.5 * x.square().sum(1) - 0.5 * x.shape[1] * math.log(2 * math.pi)


@pytest.mark.parametrize("schedule", [VariancePreserving(), SubVariancePreserving()])
def test_exact_trace(schedule: Schedule) -> None:
    x = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    got = log_density(Standardised(3).score(schedule), schedule, x, tolerance=1e-7)
    torch.testing.assert_close(got, normal(x), rtol=0, atol=2e-4)


def test_narrow_gaussian() -> None:
    # Exact but for the prior: ln p~_0(x) = ln p_0(x) - ln p_1(x_1) + ln N(x_1; 0, 1).
    schedule = VariancePreserving()
    law = Gaussian(torch.tensor([0.3, -0.4]).double(), torch.tensor([0.04, 0.5]).double())
    x = law.mean + law.variance.sqrt() * torch.randn(
        50, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    end = law.flow(schedule, x, EPSILON, 1.0)

    def exact(points: Tensor, t: float) -> Tensor:
        time = torch.tensor(t, dtype=torch.float64)
        alpha = schedule.alpha(time)
        deviation = (alpha**2 * law.variance + schedule.sigma(time) ** 2).sqrt()
        return normal((points - alpha * law.mean) / deviation) - deviation.log().sum()

    got = log_density(law.score(schedule), schedule, x, tolerance=1e-9)
    expected = exact(x, EPSILON) - exact(end, 1.0) + normal(end)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-6)


def test_hutchinson_is_exact_for_a_diagonal_jacobian() -> None:
    # A Rademacher probe has e_i^2 = 1, so the estimate of a diagonal matrix's trace has no noise.
    schedule = VariancePreserving()
    law = Gaussian(torch.tensor([0.3, -0.4]).double(), torch.tensor([0.2, 0.5]).double())
    source = torch.Generator().manual_seed(0)
    x = torch.randn(10, 2, generator=source, dtype=torch.float64)
    probe = torch.randint(0, 2, (1, 10, 2), generator=source).double() * 2 - 1
    exact = log_density(law.score(schedule), schedule, x, tolerance=1e-7)
    one = log_density(law.score(schedule), schedule, x, probes=probe, tolerance=1e-7)
    torch.testing.assert_close(one, exact, rtol=0, atol=1e-5)
