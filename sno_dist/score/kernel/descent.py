"""Kernel models by gradients: implicit score matching at the terminal time, or likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.optim import Adam

from sno_dist.diffusion.gaussian_mixture import GaussianMixture
from sno_dist.score.kernel.centres import Centres, coincident
from sno_dist.score.kernel.precisions import Precisions
from sno_dist.score.kernel.sets import Members, taken

__all__ = ["Descent", "Loss", "descend", "losses"]

Loss = Literal["likelihood", "implicit"]

CHECK = 5
"""Steps between looks at the held-out samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Descent:
    """How a descent goes.

    Args:
        steps: At most.
        batch: Samples of each row in a step, drawn with replacement.
        learning_rate: Of Adam, down to 0 on a cosine.
        patience: Looks at the held-out samples without a better loss after which a row has ended.
    """

    steps: int = 300
    batch: int = 128
    learning_rate: float = 5e-3
    patience: int = 10


def descend(
    members: Members,
    centres: Centres,
    precisions: Precisions,
    sources: Sequence[np.random.Generator],
    loss: Loss,
    how: Descent,
) -> tuple[GaussianMixture, Tensor]:
    """Move R rows' precisions; each row ends as it was at its own best look.

    Args:
        members: The samples; those held out tell the best look, in sets without any the last.
        centres: Fixed; none explains a sample that it is.
        precisions: Of the centres, changed in place.
        sources: Of the batches, one for each of R / M sets.
        loss: "likelihood", or "implicit", Hyvarinen's loss.
        how: The steps.

    Returns:
        The mixtures, and the mean of the loss over what was held out, (R,).
    """
    optimizer = Adam(precisions.parameters(), lr=how.learning_rate, betas=(0.9, 0.99))
    best = _mixture(centres, precisions).mapped(torch.detach)
    told = torch.full((len(members.samples),), math.inf).to(members.samples)
    stale = torch.zeros_like(told)
    for step in range(how.steps + 1):
        if step % CHECK == 0 or step == how.steps:
            mixture = _mixture(centres, precisions).mapped(torch.detach)
            with torch.no_grad():
                now = members.verdict(losses(mixture, members.held_out, loss), step)
            better = (now < told) & (stale < how.patience)
            stale = torch.where(better, 0.0, stale + 1)
            told = torch.where(better, now, told)
            best = mixture.where(better, best)
            if bool((stale >= how.patience).all()):
                break
        for group in optimizer.param_groups:
            group["lr"] = how.learning_rate * 0.5 * (1 + math.cos(math.pi * step / how.steps))
        optimizer.zero_grad()
        x = _batch(members, sources, how.batch)
        # In a set's own units, so that Adam's epsilon is the same for all.
        unit = precisions.bandwidth.square() if loss == "implicit" else 1.0
        (unit * losses(_mixture(centres, precisions), x, loss).mean(1)).sum().backward()
        optimizer.step()
    return best, told


def losses(mixture: GaussianMixture, x: Tensor, loss: Loss) -> Tensor:
    """The loss of each sample, no centre explaining one that it is.

    Equation: likelihood, -ln p; implicit, 2 (Laplacian p) / p - |grad ln p|^2.

    Args:
        mixture: Of R rows.
        x: (R, N, D).
        loss: Which.

    Returns:
        (R, N); 0 for samples that no centre is left to explain.
    """
    excluded = coincident(x, mixture.centres[:, 0])
    alone = (excluded | (mixture.log_weights[:, None] == -math.inf)).all(-1)
    excluded = excluded & ~alone[..., None]
    if loss == "likelihood":
        values = -mixture.log_density(x, excluded)
    else:
        values = mixture.at(x, excluded).implicit_loss()
    return torch.where(alone, 0.0, values)


def _mixture(centres: Centres, precisions: Precisions) -> GaussianMixture:
    return GaussianMixture(
        log_weights=centres.log_weights,
        centres=centres.points[:, None],
        covariance=precisions(),
    )


def _batch(members: Members, sources: Sequence[np.random.Generator], size: int) -> Tensor:
    """Fitted samples, (R, size, D), drawn from each set's own source."""
    rows = len(members.samples) // len(sources)
    uniform = np.concatenate([source.random((rows, size)) for source in sources])
    order = torch.argsort(members.fitted, dim=1, descending=True, stable=True)
    place = torch.from_numpy(uniform).to(members.samples) * members.fitted.sum(1, keepdim=True)
    return taken(members.samples, order.gather(1, place.long()))
