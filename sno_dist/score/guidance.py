"""Classifier-free guidance on u."""

from __future__ import annotations

import torch
from torch import Tensor

from sno_dist.diffusion.solvers import ScoreAt
from sno_dist.score.of_one import ScoreOfOne
from sno_dist.score.preconditioned import PreconditionedScore

__all__ = ["guided"]


def guided(
    model: PreconditionedScore | ScoreOfOne, u: Tensor, null: Tensor, weight: float
) -> ScoreAt:
    """The guided score of given embeddings as a function of (x, t).

    Equation: s = s(null) + weight (s(u) - s(null)); weight 1 is the plain score and evaluates
    the network once, any other weight evaluates it on a doubled batch.

    Args:
        model: The score.
        u: (N, U), one row per sample.
        null: (U,) what u was replaced by in training.
        weight: At least 0.
    """
    if weight == 1.0:
        return lambda x, t: model.score(u, x, t)
    both = torch.cat([u, null.expand_as(u)])

    def score(x: Tensor, t: Tensor) -> Tensor:
        given, free = model.score(both, torch.cat([x, x]), torch.cat([t, t])).chunk(2)
        return free + weight * (given - free)

    return score
