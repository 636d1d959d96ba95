"""The score of one distribution, with its u as a parameter beside the weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from sno_dist.diffusion.schedule import Schedule
from sno_dist.score.preconditioned import PreconditionedScore

__all__ = ["ScoreOfOne"]


class ScoreOfOne(nn.Module):
    """A score whose u is a parameter: what it is given as u is not looked at.

    What u tells a closed-form base, a mean and how many samples it is of, stays as it is.

    Args:
        model: The operator's score; it is copied.
        u: (U,) where to begin.
    """

    statistic: Tensor

    def __init__(self, model: PreconditionedScore, u: Tensor) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        learned = len(u) - (model.base.size if model.base else 0)
        self.u = nn.Parameter(u[:learned].detach().clone())
        self.register_buffer("statistic", u[learned:].detach().clone())

    @property
    def schedule(self) -> Schedule:
        """The SDE."""
        return self.model.schedule

    def forward(self, u: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The noise that is told, (N, Z)."""
        del u
        return self.model(self._own(x), x, t)

    def score(self, u: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """s(x, t), (N, Z)."""
        del u
        return self.model.score(self._own(x), x, t)

    def _own(self, x: Tensor) -> Tensor:
        return torch.cat([self.u, self.statistic]).expand(len(x), -1)
