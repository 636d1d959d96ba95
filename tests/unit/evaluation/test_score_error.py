from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sno_dist.diffusion.schedule import (
    Schedule,
    SubVariancePreserving,
    VarianceExploding,
    VariancePreserving,
)
from sno_dist.evaluation.score_error import cell_side, law_of, relative_error
from sno_dist.shards.manifest import Manifest
from sno_dist.shards.sources.gaussian_mixture import lower_corners

LAW = "00-02-14-54"
SCHEDULES = (VarianceExploding(), VariancePreserving(), SubVariancePreserving())


def manifest(shift: tuple[float, ...] = (0.0, 0.0), scale: tuple[float, ...] = (1.0, 1.0)):
    return Manifest(
        root="",
        population="lattice",
        domain="vector",
        shape=(2,),
        dtype="float32",
        shift=shift,
        scale=scale,
        entries=[],
    )


def error(score, schedule: Schedule, level: float, seed: int = 0) -> float:
    law = law_of(LAW, manifest())
    return relative_error(score, schedule, law, level, np.random.default_rng(seed))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("level", [0.1, 1.6])
def test_the_exact_score_has_no_error_and_none_at_all_has_all(
    schedule: Schedule, level: float
) -> None:
    law = law_of(LAW, manifest())

    def exact(x: Tensor, t: Tensor) -> Tensor:
        return law.score(x, schedule.alpha(t), schedule.sigma(t))

    assert error(exact, schedule, level) == 0
    assert error(lambda x, _: torch.zeros_like(x), schedule, level) == 1
    assert error(lambda x, t: 1.1 * exact(x, t), schedule, level) == pytest.approx(0.01)


def test_points_are_of_the_law_and_of_its_noise() -> None:
    """E |s|^2 at the points is the Fisher information that `math.md` A9's losses imply."""
    schedule, found = VarianceExploding(), []

    def caught(x: Tensor, t: Tensor) -> Tensor:
        found.append((x, t))
        return torch.zeros_like(x)

    for seed in range(100):
        error(caught, schedule, 1.0, seed)
    x, t = torch.cat([x for x, _ in found]), torch.cat([t for _, t in found])
    assert x.dtype == t.dtype == torch.float64
    torch.testing.assert_close(schedule.sigma(t), torch.ones_like(t))
    corners = torch.from_numpy(lower_corners(LAW))
    mean, variance = corners.mean(0) + 0.5, corners.var(0, correction=0) + 1 / 12 + 1
    torch.testing.assert_close(x.mean(0), mean, atol=0.06, rtol=0)
    torch.testing.assert_close(x.var(0), variance, atol=0, rtol=0.03)
    score = law_of(LAW, manifest()).score(x, schedule.alpha(t), schedule.sigma(t))
    assert 1 - float(score.square().sum(1).mean()) / 2 == pytest.approx(0.374835, abs=0.01)


def test_the_level_is_in_cells_whatever_the_scale() -> None:
    scaled = manifest(shift=(0.5, -1.0), scale=(1.5, 2.0))
    assert cell_side(scaled) == pytest.approx(1 / math.sqrt(3))
    law = law_of(LAW, scaled)
    sides = law.high - law.low
    torch.testing.assert_close(sides, torch.tensor([[1 / 1.5, 0.5]]).double().expand(4, 2))
    data = law.low * torch.tensor([1.5, 2.0]) + torch.tensor([0.5, -1.0])
    np.testing.assert_allclose(data, lower_corners(LAW), atol=1e-15)
