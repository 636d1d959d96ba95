"""The Frechet distance between Gaussians fitted to features, from moments that can be pooled.

One distribution's samples are too few to fit a covariance of many features, so each distribution
leaves its `Moments` and they are pooled over all distributions of a split before the distance.
Of more than `WIDE` features, such as the genes of cells or the pixels of images without a judge,
these are of a random projection: wide matrices for every distribution and K would fill the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sno_dist.errors import DataError
from sno_dist.evaluation.rows import as_rows

__all__ = ["Moments", "between", "moments", "pool_evenly", "pool_weighted"]

WIDE = 256
"""Features of which moments are kept; of more, of their projection onto as many random axes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moments:
    """First and second moments of a feature set.

    Args:
        count: Number of samples, or their total weight.
        mean: (d,) float64.
        scatter: (d, d) float64, the sum of centred outer products: covariance x (count - 1).
    """

    count: float
    mean: NDArray[np.float64]
    scatter: NDArray[np.float64]

    @property
    def covariance(self) -> NDArray[np.float64]:
        """The unbiased covariance, (d, d).

        Raises:
            DataError: If there are fewer than two samples.
        """
        if self.count < 2:
            raise DataError(
                "a Frechet distance needs a covariance",
                got=f"{self.count:g} samples",
                expected="at least 2 on each side",
                fix="draw or hold out more samples",
            )
        return self.scatter / (self.count - 1)


def moments(features: NDArray[Any]) -> Moments:
    """The moments of (n, ...) features, n >= 1, in float64.

    Of more than `WIDE` features d, those of sqrt(d / WIDE) Q'x, Q with orthonormal columns: squared
    distances of means and traces of covariances are right in expectation over Q.
    """
    rows = as_rows(features, "features")
    if rows.shape[1] > WIDE:
        rows = rows @ _axes(rows.shape[1])
    mean = rows.mean(axis=0)
    centred = rows - mean
    return Moments(count=len(rows), mean=mean, scatter=centred.T @ centred)


@lru_cache(maxsize=1)
def _axes(size: int) -> NDArray[np.float64]:
    """(size, WIDE): always the same random subspace, so that moments made apart can be pooled."""
    axes, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((size, WIDE)))
    return axes * np.sqrt(size / WIDE)


def pool_evenly(parts: Sequence[Moments], kept: NDArray[np.bool_] | None = None) -> list[Moments]:
    """The moments of mixtures in which every set weighs the same, however large it is.

    Args:
        parts: P >= 1 sets' moments, in an order that does not depend on who computed them.
        kept: (R, P), which sets each mixture is of; none: one, of all.

    Returns:
        R moments, whose counts add up to those of the sets where all are kept.
    """
    counts = np.array([part.count for part in parts], dtype=np.float64)
    chosen = np.ones((1, len(parts)), bool) if kept is None else kept
    return pool_weighted(parts, chosen * (counts.mean() / counts))


def pool_weighted(parts: Sequence[Moments], weights: NDArray[Any]) -> list[Moments]:
    """The moments of many weighted unions, such as all sets but one.

    Args:
        parts: P sets' moments.
        weights: (R, P), how often each set counts in each union.

    Returns:
        R moments.
    """
    weights = np.asarray(weights, dtype=np.float64)
    counts = weights * [part.count for part in parts]
    means = np.stack([part.mean for part in parts])
    # Centred at one common point, so that the subtraction below cancels little.
    centre = means.mean(axis=0)
    means = means - centre
    scatters = np.tensordot(weights, np.stack([part.scatter for part in parts]), axes=1)
    pooled = []
    for count, scatter in zip(counts, scatters, strict=True):
        total = float(count.sum())
        mean = count @ means / total
        within = scatter + (means.T * count) @ means - total * np.outer(mean, mean)
        pooled.append(Moments(count=total, mean=mean + centre, scatter=within))
    return pooled


def between(x: Moments, y: Moments) -> float:
    r"""|m_x - m_y|^2 + tr(S_x + S_y - 2 (S_x S_y)^(1/2)), at least 0.

    The eigenvalues of S_x S_y are those of the symmetric S_x^(1/2) S_y S_x^(1/2), so the trace of
    the root is a sum of real square roots: never imaginary, and no matrix root is iterated.

    Raises:
        DataError: If either side has fewer than two samples, or the feature sizes differ.
    """
    a, b = x.covariance, y.covariance
    if a.shape != b.shape:
        raise DataError("the two feature sets differ in size", got=len(a), expected=len(b))
    values, vectors = np.linalg.eigh(a)
    root = vectors * np.sqrt(values.clip(min=0)) @ vectors.T
    product = root @ b @ root
    cross = np.sqrt(np.linalg.eigvalsh((product + product.T) / 2).clip(min=0)).sum()
    shift = x.mean - y.mean
    return max(0.0, float(shift @ shift + np.trace(a) + np.trace(b) - 2 * cross))
