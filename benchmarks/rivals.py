"""What closed forms are measured beside: a trained network, and a kernel density estimate."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor, nn

from sno_dist.diffusion import likelihood
from sno_dist.diffusion.objective import times, weights
from sno_dist.diffusion.schedule import VarianceExploding
from sno_dist.errors import RunError
from sno_dist.nn.layers import mlp
from sno_dist.score.preconditioned import PreconditionedScore

__all__ = ["SCHEDULE", "best_kernels", "log_density", "train"]

SCHEDULE = VarianceExploding(5.0)
"""Of the network."""

BANDWIDTHS = np.geomspace(0.003, 1.5, 80)


class Plain(nn.Module):
    """A perceptron of x and the noise coordinate."""

    def __init__(self, dims: int, width: int = 128, depth: int = 3) -> None:
        super().__init__()
        self.body = mlp(dims + 1, width, depth, dims, nn.SiLU)

    def forward(self, u: Tensor, x: Tensor, c: Tensor) -> Tensor:
        """U is not used: there is one law."""
        del u
        return self.body(torch.cat([x, c[:, None]], 1))


def train(data: Tensor, marks: Sequence[int], seed: int) -> list[tuple[float, PreconditionedScore]]:
    """Denoising score matching on one law's samples.

    Returns:
        At each mark, in steps, the seconds of training until then and the averaged network.
    """
    torch.manual_seed(seed)
    model = PreconditionedScore(Plain(data.shape[1]), SCHEDULE, "edm")
    average = deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    found, spent, data = [], 0.0, data.float()
    start = time.process_time()
    for step in range(1, max(marks) + 1):
        x = data[torch.randint(len(data), (512,))]
        t = times(torch.rand(512), SCHEDULE, "lognormal", -1.2, 1.2)
        noise = torch.randn_like(x)
        noised = x + SCHEDULE.sigma(t)[:, None] * noise
        loss = ((model(x, noised, t) - noise).square().mean(1) * weights(t, SCHEDULE, "edm")).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for kept, new in zip(average.parameters(), model.parameters(), strict=True):
                kept.lerp_(new, max(1e-3, 1 / step))
        if step in marks:
            spent += time.process_time() - start
            found.append((spent, deepcopy(average)))
            start = time.process_time()
    return found


def log_density(model: PreconditionedScore, points: Tensor) -> Tensor:
    """Of a trained network at points, (N,) nats."""

    def score(x: Tensor, t: Tensor) -> Tensor:
        return model.score(x, x, t)

    return likelihood.log_density(score, SCHEDULE, points, tolerance=1e-4)


def best_kernels(train: Tensor, test: Tensor) -> tuple[float, float]:
    """The bandwidth that is best on the test set, and its mean log density there.

    Raises:
        RunError: If it lies at an end of the grid, where it is not the best there is.
    """
    squares = torch.cdist(test, train).square()
    told = []
    for width in BANDWIDTHS.tolist():
        scale = math.log(len(train)) + 0.5 * train.shape[1] * math.log(2 * math.pi * width**2)
        told.append(float((-0.5 * squares / width**2).logsumexp(1).mean()) - scale)
    best = int(np.argmax(told))
    if best in (0, len(told) - 1):
        raise RunError("the best bandwidth lies at an end of the grid", got=BANDWIDTHS[best])
    return float(BANDWIDTHS[best]), told[best]
