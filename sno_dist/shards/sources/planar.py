"""Laws in the plane with thin structure: curves, blades, squares and rings, each in many variants.

A variant is its family turned and stretched, as its name and the split's seed tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sno_dist.config.schema import Planar, Split
from sno_dist.runtime.rng import generator
from sno_dist.shards.sources.plane import PlaneLaws
from sno_dist.shards.sources.source import Role
from sno_dist.shards.sources.split import assign

__all__ = ["CURVES", "FAMILIES", "RING", "PlanarSource", "planar_source", "polar"]

Points = NDArray[np.float64]
Path = Callable[[Points], Points]
"""Shares on [0, 1), (n,), to places on a curve, (n, 2)."""


def polar(radius: Points, angle: Points) -> Points:
    """Polar coordinates to (n, 2)."""
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)


def _moons(share: Points) -> Points:
    """Two half circles, one in the other's opening."""
    second, angle = share >= 0.5, 2 * np.pi * (share % 0.5)
    side = np.where(second, -1.0, 1.0)
    return polar(side, angle) + np.outer(second, [1.0, 0.5])


def _circles(share: Points) -> Points:
    """Two around 0, of radius 1 and 1/2."""
    return polar(np.where(share < 0.5, 1.0, 0.5), 4 * np.pi * (share % 0.5))


def _spirals(share: Points) -> Points:
    """Two arms of a turn and a half."""
    along = 2 * (share % 0.5)
    return polar(0.2 + 1.3 * along, 3 * np.pi * along + np.pi * (share < 0.5))


def _swiss_roll(share: Points) -> Points:
    """A slice of the roll, one and a half turns, scaled to radius 1.5."""
    angle = 1.5 * np.pi * (1 + 2 * share)
    return polar(angle / (3 * np.pi), angle)


CURVES: Mapping[str, tuple[Path, float]] = {
    "moons": (_moons, 0.05),
    "circles": (_circles, 0.04),
    "spirals": (_spirals, 0.04),
    "swiss_roll": (_swiss_roll, 0.04),
}
"""Family -> a curve of even share, and the deviation of the Gaussian noise around it."""

RING = polar(np.ones(8), np.arange(8) * np.pi / 4), 0.08
"""The centres of eight Gaussians, and their deviation."""


def _pinwheel(count: int, source: np.random.Generator) -> Points:
    """Five Gaussian blades, bent."""
    blade = source.normal((1.0, 0.0), (0.3, 0.05), (count, 2))
    turn = 2 * np.pi / 5 * source.integers(5, size=count) + 0.25 * np.exp(blade[:, 0])
    return polar(blade[:, 0], turn) + polar(blade[:, 1], turn + np.pi / 2)


def _checkerboard(count: int, source: np.random.Generator) -> Points:
    """The eight black squares of a board of four by four of side 1/2 around 0."""
    row, place = source.integers(4, size=count), source.integers(2, size=count)
    corner = np.stack([2 * place + row % 2, row], 1)
    return (corner + source.random((count, 2))) / 2 - 1


def _ring(count: int, source: np.random.Generator) -> Points:
    centres, deviation = RING
    return centres[source.integers(8, size=count)] + source.normal(0, deviation, (count, 2))


def _along(path: Path, noise: float) -> Callable[[int, np.random.Generator], Points]:
    def draw(count: int, source: np.random.Generator) -> Points:
        return path(source.random(count)) + noise * source.standard_normal((count, 2))

    return draw


FAMILIES: Mapping[str, Callable[[int, np.random.Generator], Points]] = {
    **{name: _along(*curve) for name, curve in CURVES.items()},
    "pinwheel": _pinwheel,
    "checkerboard": _checkerboard,
    "ring": _ring,
}
"""Family -> a count and a source to independent points, (count, 2)."""


def planar_source(config: Planar, split: Split) -> PlanarSource:
    """Make the source.

    Args:
        config: The families, how many variants of each, and samples per law.
        split: Which variants are unseen, and what draws them.
    """
    names = [f"{family}-{i:03d}" for family in config.families for i in range(config.variants)]
    return PlanarSource(
        splits=assign(names, split),
        counts={"model": config.model, "reference": config.reference},
        seed=split.seed,
    )


@dataclass(frozen=True, kw_only=True)
class PlanarSource(PlaneLaws):
    """Points of the families' variants; a `Source`.

    Args:
        seed: Of the laws and their samples.
    """

    seed: int

    def frame(self, name: str) -> Points:
        """The (2, 2) matrix of which a family's points are multiplied: stretched, then turned."""
        keyed = generator(self.seed, "planar", name, "frame")
        angle, stretch = keyed.uniform(0, 2 * np.pi), np.exp(keyed.uniform(-0.3, 0.3, 2))
        turn = polar(np.ones(2), np.array([angle, angle + np.pi / 2]))
        return stretch[:, None] * turn

    def draw(self, name: str, role: Role) -> NDArray[np.float32]:
        """Independent points of a law: (n, 2) float32."""
        keyed = generator(self.seed, "planar", name, role)
        points = FAMILIES[name.rpartition("-")[0]](self.counts[role], keyed)
        return (points @ self.frame(name)).astype(np.float32)

    def audit(self) -> Mapping[str, Any]:
        """Laws per split; each is drawn with random numbers of its own."""
        laws = list(self.splits.values())
        return {"laws": {split: laws.count(split) for split in ("seen", "unseen")}}
