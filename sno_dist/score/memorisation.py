"""Whether samples repeat what a model was fitted to: two measures of nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sno_dist.errors import DataError

__all__ = ["Memorisation", "memorisation"]

BLOCK = 1024

NEAR = 1 / 3
"""A sample is a copy if its nearest neighbour is nearer than this share of the second."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Memorisation:
    """Both measures.

    Args:
        distance_ratio: Mean distance to the nearest fitted sample, over that of fresh samples;
            1 is none, 0 is copying.
        copies: The share of copies among the samples.
        fresh_copies: The same among fresh samples: what chance gives.
    """

    distance_ratio: float
    copies: float
    fresh_copies: float


def memorisation(generated: Tensor, fitted: Tensor, fresh: Tensor) -> Memorisation:
    """Compare generated samples with fresh ones, as neighbours of those that were fitted.

    Args:
        generated: (N, D).
        fitted: (K, D), K >= 2.
        fresh: (M, D) samples of the law that were not fitted.

    Raises:
        DataError: If there are fewer than two fitted samples, or the fresh ones are among them.
    """
    if len(fitted) < 2:
        raise DataError(
            "memorisation is undefined", got=f"{len(fitted)} fitted samples", expected="at least 2"
        )
    own, other = _neighbours(generated, fitted), _neighbours(fresh, fitted)
    if not bool(other[:, 0].sum() > 0):
        raise DataError(
            "memorisation is undefined",
            got="fresh samples that are all among the fitted ones",
            fix="give samples that the model was not fitted to",
        )
    return Memorisation(
        distance_ratio=float(own[:, 0].mean() / other[:, 0].mean()),
        copies=_copies(own),
        fresh_copies=_copies(other),
    )


def _neighbours(points: Tensor, fitted: Tensor) -> Tensor:
    """(N, 2) distances to the two nearest fitted samples."""
    found = []
    for part in points.double().split(BLOCK):
        gaps = torch.cdist(part, fitted.double(), compute_mode="donot_use_mm_for_euclid_dist")
        found.append(gaps.topk(2, dim=1, largest=False, sorted=True).values)
    return torch.cat(found)


def _copies(neighbours: Tensor) -> float:
    first, second = neighbours.unbind(1)
    # one that was fitted to twice is at no distance from either
    return float(((first < NEAR * second) | (first == 0)).double().mean())
