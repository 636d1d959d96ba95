"""Which candidates are kept as samples of a context set: those that embed nearest to its u.

A sample that drifted to another distribution has an embedding of its own that lies there, which
the operator can see by itself: on digit pairs dropping one in twenty drops most that a classifier
would misname, where guidance pays for each with diversity everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sno_dist.errors import ConfigError
from sno_dist.model.parts import OperatorParts

__all__ = ["candidates", "departures", "nearest"]


def candidates(count: int, acceptance: float) -> int:
    """How many are drawn for `count` to be the accepted share of them.

    Raises:
        ConfigError: If the share is not above 0 and at most 1.
    """
    if not 0 < acceptance <= 1:
        raise ConfigError(
            "acceptance is a share", where="acceptance", got=acceptance, expected="0 < share <= 1"
        )
    return round(count / acceptance)


@torch.no_grad()
def departures(operator: OperatorParts, u: Tensor, x: Tensor) -> Tensor:
    """How far each sample alone embeds from a u, a base's statistic aside.

    Args:
        operator: One that embeds.
        u: (N, U).
        x: (N, *shape), data units.

    Returns:
        (N,) Euclidean distances.

    Raises:
        DataError: If the operator cannot embed.
    """
    embedder = operator.embedder
    alone = embedder(operator.context_view(x), torch.ones(len(x), dtype=torch.int64))
    return torch.linalg.vector_norm(alone - u[:, : embedder.size], dim=1)


def nearest(departures: Tensor, count: int) -> Tensor:
    """The places of the `count` smallest of (N,), rising."""
    return departures.argsort(stable=True)[:count].sort().values
