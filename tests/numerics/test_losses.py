"""The losses without noise have the gradient, in expectation, of the denoising one."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sno_dist.diffusion.maps.simplex import isometric_log_ratio
from sno_dist.diffusion.maps.transform import OntoSimplex
from sno_dist.diffusion.schedule import VariancePreserving
from sno_dist.score.losses import Matching, score_losses
from sno_dist.score.preconditioned import PreconditionedScore

SCHEDULE = VariancePreserving(0.1, 20.0)
LEVELS = torch.tensor([0.3, 0.5], dtype=torch.float64)


class Affine(nn.Module):
    """A score of two numbers: -slope x + shift."""

    def __init__(self) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(0.6, dtype=torch.float64))
        self.shift = nn.Parameter(torch.tensor(0.1, dtype=torch.float64))

    def forward(self, u: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """F of which the score is F / sigma."""
        del u
        sigma = SCHEDULE.sigma(t)[:, None]
        return sigma * (self.shift - self.slope * x)


def plain(x: Tensor, probe: Tensor) -> Tensor:
    return probe + 0 * x


def bent(x: Tensor, probe: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(
        (OntoSimplex(isometric_log_ratio(2)).forward(x) * probe).sum(), x, create_graph=True
    )
    return found


def gradient(matching: Matching, field: tuple, count: int) -> Tensor:
    """Of the loss with respect to slope and shift, over many noised samples of N(.5, .25 I)."""
    source = torch.Generator().manual_seed(0)
    model = PreconditionedScore(Affine(), SCHEDULE, "noise")
    clean, noise = (torch.randn(count, 2, generator=source, dtype=torch.float64) for _ in range(2))
    t = LEVELS[torch.arange(count) % 2]
    x = SCHEDULE.alpha(t)[:, None] * (0.5 + 0.5 * clean) + SCHEDULE.sigma(t)[:, None] * noise
    u, probe = torch.zeros(count, 1), torch.cat([noise.roll(1, 0), noise.roll(2, 0)], 1)
    loss = score_losses(model, matching, u, x, t, noise, probe, field).mean()
    found = torch.autograd.grad(loss, list(model.network.parameters()))
    return torch.stack(found)


@pytest.mark.parametrize("matching", ["implicit", "sliced", "generalised"])
def test_gradients_are_those_of_denoising(matching: Matching) -> None:
    count = 400_000
    exact = gradient("denoising", (plain, 2), count)
    found = gradient(matching, (plain, 2), count)
    # ten standard errors of the noisiest, sliced: e'(J)e has unit variance an entry
    torch.testing.assert_close(found, exact, rtol=0, atol=10 / math.sqrt(count))


def test_a_bent_field_has_the_same_minimiser() -> None:
    # at the exact score both gradients vanish; away from it they weigh the miss differently
    t = torch.full((200_000,), 0.4, dtype=torch.float64)
    source = torch.Generator().manual_seed(1)
    normals = torch.randn(2, len(t), 2, generator=source, dtype=torch.float64)
    alpha, sigma = SCHEDULE.alpha(t[:1]), SCHEDULE.sigma(t[:1])
    x = alpha * (0.5 + 0.5 * normals[0]) + sigma * normals[1]
    variance = alpha**2 / 4 + sigma**2
    network = Affine()
    network.slope.data.fill_(float(1 / variance))
    network.shift.data.fill_(float(0.5 * alpha / variance))
    model = PreconditionedScore(network, SCHEDULE, "noise")

    def slope(field: tuple) -> Tensor:
        u, noise = torch.zeros(len(t), 1), normals[1]
        probe = torch.cat([noise.roll(1, 0), noise.roll(2, 0)], 1)
        loss = score_losses(model, "generalised", u, x, t, noise, probe, field).mean()
        return torch.stack(torch.autograd.grad(loss, list(network.parameters())))

    assert float(slope((bent, 3)).abs().max()) < 0.01
    network.slope.data.mul_(1.2)
    assert float(slope((bent, 3)).abs().max()) > 0.02
