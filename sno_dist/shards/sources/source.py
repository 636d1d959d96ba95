"""What a source is: it names its distributions and makes the samples of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["ROLES", "Distribution", "Domain", "Role", "Source"]

Role = Literal["model", "judge", "reference"]
"""What samples are for: `model`, all that the operator may ever see (training samples of a seen
distribution, contexts of an unseen one); `judge`, what trains the classifier; `reference`, the
real held-out samples that figures are compared with. Nothing is in two roles."""

ROLES: tuple[Role, ...] = ("model", "judge", "reference")

Domain = Literal["image", "vector"]
"""`image`: (C, H, W) uint8. `vector`: (D,) float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Distribution:
    """One distribution of a population.

    Args:
        name: Its name, unique, a legal file name.
        split: Which split it belongs to; none: the config's split decides.
    """

    name: str
    split: Literal["seen", "unseen"] | None = None


class Source(Protocol):
    """A population of distributions."""

    @property
    def domain(self) -> Domain:
        """The kind of sample."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """One sample's shape: (C, H, W) of an image, (D,) of a vector."""
        ...

    @property
    def roles(self) -> Sequence[Role]:
        """The roles this source can fill."""
        ...

    def distributions(self) -> Sequence[Distribution]:
        """All distributions, in a fixed order."""
        ...

    def draw(self, name: str, role: Role) -> NDArray[np.generic]:
        """The samples of one distribution in one role: (n, *shape), the same at every call."""
        ...

    def audit(self) -> Mapping[str, Any]:
        """What shows that the roles share no raw material, for the manifest. **Collective.**"""
        ...
