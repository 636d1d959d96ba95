"""Gaussian mixtures by expectation-maximisation, for many sets at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sno_dist.diffusion.covariance import CholeskyPrecision, Covariance, Diagonal, LowRank, total_of
from sno_dist.diffusion.gaussian_mixture import GaussianMixture
from sno_dist.score.kernel.centres import Centres, nearest
from sno_dist.score.kernel.precisions import Form
from sno_dist.score.kernel.sets import Members

__all__ = ["Prior", "expectation_maximisation", "features", "maximise", "natural", "penalty"]

TINY = 1e-12
"""Samples that a component has at least; without any it keeps the prior's covariance."""


@dataclass(frozen=True, slots=True)
class Prior:
    """What covariances shrink to: as if each component had `strength` more samples around it.

    Equation: inverse Wishart, ln p(S) = -strength / 2 (ln det S + variance tr S^-1) + constant.

    Args:
        variance: (R,) of those samples, in every direction.
        strength: How many they are.
    """

    variance: Tensor
    strength: float


def expectation_maximisation(
    members: Members,
    centres: Centres,
    prior: Prior,
    *,
    form: Form,
    rank: int,
    steps: int,
    patience: int,
) -> tuple[GaussianMixture, Tensor]:
    """Fit R mixtures; each is that of its own best step, whoever else is fitted with it.

    Args:
        members: The samples; those held out tell the best step, in sets without any the last.
        centres: Where to begin.
        prior: Of the covariances.
        form: Of the covariances; "low_rank" is isotropic but for `rank` directions (Tipping and
            Bishop, 1999).
        rank: Of "low_rank".
        steps: At most.
        patience: Steps without a better held-out likelihood after which a row has ended.

    Returns:
        The mixtures, and the mean of -ln p over what was held out, (R,).
    """
    maximum = partial(maximise, prior=prior, form=form, rank=rank)
    fitted, held_out = (features(x, form) for x in (members.samples, members.held_out))
    index = nearest(members.samples, centres.points, centres.log_weights > -math.inf)
    shares = members.fitted.new_zeros(*index.shape, centres.points.shape[1])
    mixture = maximum(fitted, shares.scatter_(2, index[..., None], members.fitted[..., None]))
    best, told = mixture, torch.full_like(prior.variance, math.inf)
    stale = torch.zeros_like(told)
    for step in range(steps):
        if step:
            logs = fitted @ natural(mixture, form).mT
            shares = logs.sub_(logs.logsumexp(2, keepdim=True)).exp_()
            mixture = maximum(fitted, shares.mul_(members.fitted[..., None]))
        density = (held_out @ natural(mixture, form).mT).logsumexp(2)
        now = members.verdict(-density, step)
        better = (now < told) & (stale < patience)
        stale = torch.where(better, 0.0, stale + 1)
        told = torch.where(better, now, told)
        best = mixture.where(better, best)
        if bool((stale >= patience).all()):
            break
    return best, told


def features(samples: Tensor, form: Form) -> Tensor:
    """What a Gaussian's logarithm is linear in, (R, K, F): 1, x, and x x' or, diagonal, x^2."""
    squares = samples.square()
    if form != "diagonal":
        squares = (samples[..., None] * samples[..., None, :]).flatten(2)
    return torch.cat([torch.ones_like(samples[..., :1]), samples, squares], 2)


def natural(mixture: GaussianMixture, form: Form) -> Tensor:
    """What ln w_c N(x; Z_c, S_c) is in terms of `features`, (R, C, F).

    Equation: ln w - (ln det 2 pi S + Z' S^-1 Z) / 2, S^-1 Z, -S^-1 / 2. Odds are then one matrix
    product, whose rounding grows as the square of |x| over the narrowest deviation: 1e-8 at 10^4.
    """
    centres, covariance = mixture.centres[:, 0], mixture.covariance
    dims = centres.shape[-1]
    pull = covariance.pull(mixture.centres)[:, 0]
    volume = covariance.log_det()[:, 0] + dims * math.log(2 * math.pi)
    constant = mixture.log_weights - 0.5 * (volume + total_of(centres * pull))
    unit = torch.eye(dims).to(centres)[:, None].expand(len(centres), -1, centres.shape[1], -1)
    precision = covariance.pull(unit).transpose(1, 2)
    squares = precision.diagonal(dim1=2, dim2=3) if form == "diagonal" else precision.flatten(2)
    return torch.cat([constant[..., None], pull, -0.5 * squares], 2)


def maximise(
    known: Tensor, shares: Tensor, *, prior: Prior, form: Form, rank: int
) -> GaussianMixture:
    """The mixture that maximises the expected log likelihood and the prior.

    Equation: w_c = N_c / N, Z_c = sum r_kc x_k / N_c and, of the form asked for, the likeliest to
    S_c = (sum r_kc (x_k - Z_c)(x_k - Z_c)' + strength variance I) / (N_c + strength).

    Args:
        known: (R, K, F) features of the samples.
        shares: (R, K, C) odds r of each component, 0 for samples that are not fitted.
        prior: Of the covariances.
        form: Of the covariances.
        rank: Of "low_rank".
    """
    width = known.shape[2] - 1
    dims = width // 2 if form == "diagonal" else (math.isqrt(1 + 4 * width) - 1) // 2
    sizes, sums, squares = (shares.mT @ known).split([1, dims, width - dims], 2)
    centres = sums / sizes.clamp(min=TINY)
    weight = (sizes + prior.strength).clamp(min=TINY)
    shrunk = prior.strength * prior.variance[:, None, None]
    if form == "diagonal":
        spread = (squares - sizes * centres.square()).clamp(min=0)
        covariance: Covariance = Diagonal(((spread + shrunk) / weight)[:, None])
    else:
        outer = sizes[..., None] * centres[..., None] * centres[..., None, :]
        eye = shrunk[..., None] * torch.eye(dims).to(known)
        full = (squares.unflatten(2, (dims, dims)) - outer + eye) / weight[..., None]
        covariance = _low_rank(full, rank) if form == "low_rank" else _full(full)
    weights = (sizes / sizes.sum(1, keepdim=True)).log()[..., 0]
    return GaussianMixture(log_weights=weights, centres=centres[:, None], covariance=covariance)


def penalty(mixture: GaussianMixture, prior: Prior) -> Tensor:
    """The prior's logarithm but for a constant, (R,): what each step raises with the likelihood."""
    covariance = mixture.covariance
    terms = covariance.log_det() + prior.variance[:, None, None] * covariance.trace()
    there = mixture.log_weights[:, None] > -math.inf
    return -0.5 * prior.strength * torch.where(there, terms, 0.0).sum((1, 2))


def _full(covariances: Tensor) -> CholeskyPrecision:
    """By the lower factor of the precision."""
    precision = torch.cholesky_inverse(torch.linalg.cholesky(covariances))
    return CholeskyPrecision(torch.linalg.cholesky(precision)[:, None])


def _low_rank(covariances: Tensor, rank: int) -> LowRank:
    """The likeliest covariance that is isotropic but for `rank` directions.

    Equation: v the mean of the smaller eigenvalues, U = V_R (values_R - v)^(1/2).
    """
    values, basis = torch.linalg.eigh(covariances)
    rest = values[..., :-rank].mean(-1, keepdim=True)
    factor = basis[..., -rank:] * (values[..., -rank:] - rest).clamp(min=0).sqrt()[..., None, :]
    return LowRank(rest.expand(values.shape)[:, None], factor[:, None])
