"""Rows of batched mixtures: averaged, taken apart, and put together again."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sno_dist.diffusion.covariance import CholeskyPrecision, Covariance, Diagonal, LowRank
from sno_dist.diffusion.gaussian_mixture import GaussianMixture
from sno_dist.score.kernel.centres import Centres
from sno_dist.score.kernel.precisions import Form

__all__ = ["averaged", "kernel_estimate", "mixed", "rows_of", "stacked"]


def averaged(mixture: GaussianMixture, members: int) -> GaussianMixture:
    """The mean density of each M rows: (P M, C) components to (P, M C)."""

    def join(values: Tensor) -> Tensor:
        parts = values.unflatten(0, (-1, members))
        return parts.transpose(1, 2).flatten(2, 3)

    return GaussianMixture(
        log_weights=mixture.log_weights.unflatten(0, (-1, members)).flatten(1) - math.log(members),
        centres=join(mixture.centres),
        covariance=mixture.covariance.mapped(join),
    )


def rows_of(mixture: GaussianMixture) -> list[GaussianMixture]:
    """Each distribution's own mixture, without components of no weight."""
    found = []
    for row, weights in enumerate(mixture.log_weights):
        there = (weights > -math.inf).nonzero()[:, 0]
        found.append(
            GaussianMixture(
                log_weights=weights[None, there],
                centres=mixture.centres[row : row + 1, :, there],
                covariance=mixture.covariance.mapped(
                    lambda values, row=row, there=there: values[row : row + 1, :, there]
                ),
            )
        )
    return found


def stacked(mixtures: Sequence[GaussianMixture]) -> GaussianMixture:
    """One mixture of P rows, whose spare components repeat their row's last at no weight."""
    most = max(own.log_weights.shape[1] for own in mixtures)

    def join(*values: Tensor) -> Tensor:
        padded = [own[:, :, torch.arange(most).clamp(max=own.shape[2] - 1)] for own in values]
        return torch.cat(padded)

    weights = [
        torch.nn.functional.pad(
            own.log_weights, (0, most - own.log_weights.shape[1]), value=-math.inf
        )
        for own in mixtures
    ]
    first, *rest = mixtures
    return GaussianMixture(
        log_weights=torch.cat(weights),
        centres=join(*(own.centres for own in mixtures)),
        covariance=first.covariance.mapped(join, *(own.covariance for own in rest)),
    )


def mixed(
    first: Sequence[GaussianMixture], second: Sequence[GaussianMixture], share: Tensor
) -> list[GaussianMixture]:
    """Each row (1 - share) times a mixture plus share, (P,), times another of the same form."""

    def join(*values: Tensor) -> Tensor:
        return torch.cat(values, 2)

    found = []
    for own, other, part in zip(first, second, share, strict=True):
        logs = [own.log_weights + torch.log1p(-part), other.log_weights + part.log()]
        mixture = GaussianMixture(
            log_weights=torch.cat(logs, 1),
            centres=join(own.centres, other.centres),
            covariance=own.covariance.mapped(join, other.covariance),
        )
        found += rows_of(mixture)
    return found


def kernel_estimate(centres: Centres, bandwidth: Tensor, form: Form, rank: int) -> GaussianMixture:
    """The isotropic estimate of bandwidths (P,) in the form that other mixtures have."""
    points = centres.points[:, None]
    width = bandwidth[:, None, None, None].expand(points.shape)
    if form == "full":
        covariance: Covariance = CholeskyPrecision(torch.diag_embed(width.reciprocal()))
    elif form == "diagonal":
        covariance = Diagonal(width.square())
    else:
        covariance = LowRank(width.square(), width.new_zeros(*width.shape, rank))
    return GaussianMixture(log_weights=centres.log_weights, centres=points, covariance=covariance)
