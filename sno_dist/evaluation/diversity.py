"""Whether generated samples cover a distribution, within one distribution and in feature space.

All distances are Euclidean in float64 and are computed in blocks of rows, so that memory grows
with the number of samples and not with its square.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sno_dist.embedding.pairs import mean_distance, squared_distances
from sno_dist.errors import DataError
from sno_dist.evaluation.rows import as_rows

__all__ = [
    "copying_chance",
    "copying_rate",
    "coverage",
    "neighbour_radii",
    "positive_spread",
    "spread",
    "spread_within",
]

BLOCK = 1024
TIE = 1e-9
"""Squared distances that differ by less, relatively, are equal but for rounding."""


def spread(samples: NDArray[Any], what: str = "samples") -> float:
    """The mean distance between distinct samples.

    Args:
        samples: (n, ...) samples or features, n >= 2.
        what: What they are, for the error message.

    Raises:
        DataError: If there are fewer than two samples, or a value is not finite.
    """
    return mean_distance(_tensor(samples, what, 2))


def spread_within(samples: NDArray[Any], groups: NDArray[np.integer]) -> float | None:
    """The mean of the groups' spreads; none, if no group has two samples.

    Args:
        samples: (n, ...) samples or features.
        groups: (n,) the group of each.

    Raises:
        DataError: If a value is not finite.
    """
    own = [samples[groups == group] for group in np.unique(groups)]
    values = [spread(rows) for rows in own if len(rows) > 1]
    return float(np.mean(values)) if values else None


def positive_spread(real: NDArray[Any], what: str = "real samples") -> float:
    """The spread of real samples, by which diversity divides, refused where it is zero."""
    value = spread(real, what)
    if value == 0:
        raise DataError(
            "diversity is undefined",
            got=f"{what} that are all equal",
            fix="leave this distribution out, or mend its data",
        )
    return value


def neighbour_radii(samples: NDArray[Any], neighbours: int) -> NDArray[np.float64]:
    """Squared distance of each sample to its k-th nearest other sample.

    Args:
        samples: (n, ...) samples or features, n > k.
        neighbours: k, at least 1.

    Returns:
        (n,) float64: the squared radii of the balls whose union is the samples' manifold.

    Raises:
        DataError: If there are not more than k samples, or a value is not finite.
    """
    rows = _tensor(samples, f"samples for {neighbours} neighbours", neighbours + 1)
    # The sample itself is the first of its neighbours, at distance 0.
    return torch.cat(
        [block.kthvalue(neighbours + 1, dim=1).values for block in _blocks(rows, rows)]
    ).numpy()


def coverage(points: NDArray[Any], samples: NDArray[Any], radii: NDArray[np.float64]) -> float:
    """The share of points that lie in the manifold of samples (arXiv 1904.06991, eq. 1-2).

    Precision is the coverage of generated points by real samples, recall that of real points by
    generated samples.

    Args:
        points: (n, ...) points asked about.
        samples: (m, ...) samples that span the manifold.
        radii: (m,) squared radii from `neighbour_radii(samples, k)`.
    """
    # A point that is one of the samples may lie outside its own ball by rounding alone.
    rows, others = _tensor(points, "points"), _tensor(samples, "samples")
    balls = torch.from_numpy(radii) * (1 + TIE) + _rounding(rows, others)
    inside = sum(int((block <= balls).any(dim=1).sum()) for block in _blocks(rows, others))
    return inside / len(rows)


def copying_rate(
    generated: NDArray[Any],
    contexts: Sequence[NDArray[Any]],
    groups: NDArray[np.integer],
    real: NDArray[Any],
) -> float:
    """The share of samples whose nearest neighbour is one of their own context samples.

    The neighbour is sought among the sample's own context set and the real references; of several
    that are equally near, as counts and rounded values are, each is the neighbour for its part.
    Without any copying the share is near `copying_chance`, not near 0.

    Args:
        generated: (n, ...) samples.
        contexts: G context sets, each (K, ...).
        groups: (n,) the context set, 0 <= g < G, that each sample was drawn for.
        real: (m, ...) real references that are in no context set.
    """
    rows = _tensor(generated, "generated samples")
    references = _tensor(real, "real samples")
    zero = _rounding(rows, references)
    copied = 0.0
    for group in np.unique(groups):
        own = rows[torch.from_numpy(groups == group)]
        context = _tensor(contexts[group], "context samples")
        for near, far in zip(_blocks(own, context), _blocks(own, references), strict=True):
            least = torch.minimum(near.amin(1), far.amin(1))[:, None] * (1 + TIE) + zero
            among, other = (near <= least).sum(1), (far <= least).sum(1)
            copied += float((among.double() / (among + other)).sum())
    return copied / len(rows)


def _rounding(*sets: Tensor) -> float:
    """What a squared distance of nought may come out as: it is a difference of squared norms."""
    return 1e-12 * max(float((x - x.mean(0)).square().sum(1).max()) for x in sets)


def copying_chance(context: int, real: int) -> float:
    """The copying rate of a perfect model: K of the K + m candidates are context samples."""
    return context / (context + real)


def _tensor(samples: NDArray[Any], what: str, minimum: int = 1) -> Tensor:
    return torch.from_numpy(as_rows(samples, what, minimum))


def _blocks(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Squared distances of `x` to `y`, BLOCK rows at a time; exactly 0 from a row to itself."""
    for start in range(0, len(x), BLOCK):
        block = squared_distances(x[start : start + BLOCK], y)
        if y is x:
            block.diagonal(offset=start).zero_()
        yield block
