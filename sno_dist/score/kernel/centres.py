"""Where a kernel model's centres lie: k-means, farthest first, a random part, or the whole set."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sno_dist.score.kernel.sets import taken

__all__ = ["Centres", "Choice", "bandwidths", "choose_centres", "coincident", "nearest"]

Choice = Literal["kmeans", "farthest", "subset", "context"]

ROUNDS = 10
"""Of k-means."""

WIDTHS = 32
"""Bandwidths tried, even in their logarithm from 1/200 of a set's deviation to twice that."""

ASKED = 256
"""Samples whose likelihood tells the bandwidth."""


@dataclass(frozen=True, slots=True)
class Centres:
    """C centres of each of R rows.

    Args:
        points: (R, C, D).
        log_weights: (R, C) shares of the fitted samples whose nearest centre each is, in
            logarithms; equal ones where the centres are samples; -inf where a row has fewer.
    """

    points: Tensor
    log_weights: Tensor


def choose_centres(
    samples: Tensor, fitted: Tensor, counts: Tensor, choice: Choice, uniform: Tensor
) -> Centres:
    """Choose centres for many sets at once, each by its own numbers alone.

    Args:
        samples: (R, K, D).
        fitted: (R, K) 1 for the samples to choose from, else 0; at least one in each row.
        counts: (R,) int64 how many, at least 1; where there are fewer samples, these.
        choice: "kmeans" starts at k-means++ (Arthur and Vassilvitskii, 2007); "farthest" takes
            the sample farthest from all before (Gonzalez, 1985), the first at random; "subset" a
            random part; "context" all samples.
        uniform: (R, C) on [0, 1), C at least the largest count; (R, 1) suffices for "context".
    """
    if choice == "context":
        counts = fitted.sum(1).long()
        index = _first(fitted)
    else:
        counts = torch.minimum(counts, fitted.sum(1).long())
        index = _seeds(samples, fitted, int(counts.max()), choice, uniform)
    index = index[:, : int(counts.max())]
    there = torch.arange(index.shape[1]).to(counts) < counts[:, None]
    points = taken(samples, index)
    weights = there.to(samples)
    if choice in ("kmeans", "farthest"):
        for _ in range(ROUNDS if choice == "kmeans" else 0):
            sizes, sums = _cells(samples, fitted, nearest(samples, points, there), there)
            points = torch.where(sizes > 0, sums / sizes.clamp(min=1), points)
        weights = _cells(samples, fitted, nearest(samples, points, there), there)[0][..., 0]
        weights = (weights + 1) * there
    points = torch.where(there[..., None], points, 0.0)
    return Centres(points, (weights / weights.sum(1, keepdim=True)).log())


def nearest(samples: Tensor, points: Tensor, there: Tensor) -> Tensor:
    """Which of the points that are there, (R, C), is nearest to each sample: (R, K)."""
    return torch.cdist(samples, points).masked_fill_(~there[:, None], math.inf).argmin(2)


def coincident(samples: Tensor, centres: Tensor) -> Tensor:
    """Which centre is which sample but for rounding, (R, K, C).

    A fit must not let such a centre explain such a sample: its likelihood grows without bound in
    the centre's precision, and so falls the implicit loss, to -2 D times that precision.
    """
    gaps = torch.cdist(samples, centres, compute_mode="donot_use_mm_for_euclid_dist")
    size = samples.flatten(1).abs().amax(1).clamp(min=1e-300)
    return gaps <= 1e-9 * size[:, None, None]


def bandwidths(samples: Tensor, fitted: Tensor, centres: Centres, deviation: Tensor) -> Tensor:
    """The isotropic bandwidth at which fitted samples are likeliest, leave-one-out: (R,).

    Args:
        samples: (R, K, D).
        fitted: (R, K) 0 or 1.
        centres: The centres; none explains a sample that it is.
        deviation: (R,) of each set, which scales the grid; the answer where no sample is left
            that a centre may explain.
    """
    index = _spread(fitted, ASKED)
    asked = taken(samples, index)
    squares = torch.cdist(
        asked, centres.points, compute_mode="donot_use_mm_for_euclid_dist"
    ).square()
    weights = centres.log_weights[:, None].expand_as(squares)
    weights = weights.masked_fill(coincident(asked, centres.points), -math.inf)
    told = fitted.gather(1, index) * (weights > -math.inf).any(2)
    best = torch.full_like(deviation, -math.inf)
    found = deviation
    for share in torch.logspace(math.log10(5e-3), math.log10(2), WIDTHS, dtype=torch.float64):
        width = float(share) * deviation
        logs = (weights - 0.5 * squares / width[:, None, None].square()).logsumexp(2)
        mean = torch.where(told > 0, logs, 0.0).sum(1) / told.sum(1).clamp(min=1)
        mean = mean - samples.shape[2] * width.log()
        better = (mean > best) & (told.sum(1) > 0)
        best, found = torch.where(better, mean, best), torch.where(better, width, found)
    return found


def _first(fitted: Tensor) -> Tensor:
    """Indices of the fitted samples in their order, (R, K), then of the others."""
    return torch.argsort(fitted, dim=1, descending=True, stable=True)


def _spread(fitted: Tensor, most: int) -> Tensor:
    """Indices of fitted samples, evenly over all of them where there are more than `most`."""
    index, counts = _first(fitted), fitted.sum(1, keepdim=True).long()
    places = torch.arange(min(most, index.shape[1]), device=index.device)
    return index.gather(1, torch.where(counts > most, places * counts // most, places))


def _cells(samples: Tensor, fitted: Tensor, index: Tensor, there: Tensor) -> tuple[Tensor, Tensor]:
    """How many fitted samples each centre is nearest to, (R, C, 1), and their sum, (R, C, D)."""
    rows, dims = len(samples), samples.shape[2]
    values = torch.cat([torch.ones_like(samples[..., :1]), samples], 2) * fitted[..., None]
    sums = samples.new_zeros(rows, there.shape[1], 1 + dims)
    sums.scatter_add_(1, index[..., None].expand(-1, -1, 1 + dims), values)
    return sums[..., :1], sums[..., 1:]


def _seeds(samples: Tensor, fitted: Tensor, count: int, choice: Choice, uniform: Tensor) -> Tensor:
    """Indices of samples, (R, count): each drawn, or taken, given those before."""
    squares = torch.where(fitted > 0, 1.0, 0.0).to(samples)
    chosen = []
    for turn in range(count):
        if choice == "farthest" and turn:
            index = squares.masked_fill(fitted <= 0, -1).argmax(1, keepdim=True)
        else:
            # Where every sample is a centre already, any of them again.
            steps = torch.where(squares.sum(1, keepdim=True) > 0, squares, fitted).cumsum(1)
            aim = uniform[:, turn : turn + 1].to(steps) * steps[:, -1:]
            index = torch.searchsorted(steps, aim, right=True).clamp(max=steps.shape[1] - 1)
        chosen.append(index)
        point = taken(samples, index)
        away = (samples - point).square().sum(2)
        if choice == "subset":
            squares = squares.scatter(1, index, 0.0)
        else:
            squares = torch.where(fitted > 0, away if not turn else squares.minimum(away), 0.0)
    return torch.cat(chosen, 1)
