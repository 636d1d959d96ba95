"""The score of one distribution, with its u as a parameter beside the weights."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from sno_dist.diffusion.schedule import Schedule
from sno_dist.score.preconditioned import PreconditionedScore

__all__ = ["ScoreOfOne"]


class ScoreOfOne(nn.Module):
    """A score whose u is a parameter: what it is given as u is not looked at.

    Args:
        model: The operator's score; it is copied.
        u: (U,) where to begin.
    """

    def __init__(self, model: PreconditionedScore, u: Tensor) -> None:
        super().__init__()
        self.model = copy.deepcopy(model)
        self.u = nn.Parameter(u.detach().clone())

    @property
    def schedule(self) -> Schedule:
        """The SDE."""
        return self.model.schedule

    def forward(self, u: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """The noise that is told, (N, Z)."""
        del u
        return self.model(self.u.expand(len(x), -1), x, t)

    def score(self, u: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """s(x, t), (N, Z)."""
        del u
        return self.model.score(self.u.expand(len(x), -1), x, t)
