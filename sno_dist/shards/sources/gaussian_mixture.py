"""The 6 x 6 lattice family: four equal cells a law, one rule for each half of the lattice.

Known as the "2-D Gaussian mixture" of the score neural operator, though its components are
uniform on cells. The lattice covers [-3, 3]^2 in cells of side 1; column -> x, row -> y. Columns
0..2 are the left half, 3..5 the right. In each half a law has two cells, in one row or in one
column: 6 * C(3, 2) = 18 row pairs, 3 * C(6, 2) = 45 column pairs. Seen laws have a row pair in
one half and a column pair in the other (2 * 810); unseen laws have two row pairs (324).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sno_dist.config.schema import GaussianMixture, Split
from sno_dist.errors import ConfigError
from sno_dist.runtime.rng import generator
from sno_dist.shards.sources.plane import PlaneLaws
from sno_dist.shards.sources.source import Role
from sno_dist.shards.sources.split import SplitName

__all__ = [
    "SEEN_RULES",
    "UNSEEN_RULES",
    "Cell",
    "LatticeSource",
    "Line",
    "cells",
    "gaussian_mixture_source",
    "laws",
    "lower_corners",
    "rule",
]

Cell = tuple[int, int]
"""(row, column), 0..5 each."""

Line = Literal["row", "column"]

SEEN_RULES: tuple[tuple[Line, Line], ...] = (("row", "column"), ("column", "row"))
UNSEEN_RULES: tuple[tuple[Line, Line], ...] = (("row", "row"),)

_SEED = 0  # of the population, not of a run


def laws(left: Line, right: Line) -> tuple[str, ...]:
    """The names of all laws of one rule, such as "00-02-14-54": left pair, then right pair."""
    halves = product(_pairs(left, range(3)), _pairs(right, range(3, 6)))
    return tuple(
        "-".join(f"{row}{column}" for row, column in (*first, *second)) for first, second in halves
    )


def cells(name: str) -> tuple[Cell, Cell, Cell, Cell]:
    """The four (row, column) cells of a law's name; "+1" and so on count its repetitions.

    Raises:
        ValueError: If the name is not of this family.
    """
    parts = name.partition("+")[0].split("-")
    if len(parts) != 4 or any(len(p) != 2 or not set(p) <= set("012345") for p in parts):
        raise ValueError(f"{name!r} does not name four cells of the lattice, as 00-02-14-54 does")
    a, b, c, d = ((int(part[0]), int(part[1])) for part in parts)
    return a, b, c, d


def lower_corners(name: str) -> NDArray[np.float64]:
    """The lower corners (x, y) of a law's cells, of side 1: (4, 2)."""
    return np.array([(column - 3, row - 3) for row, column in cells(name)], np.float64)


def rule(name: str) -> tuple[Line, Line]:
    """Whether the pair of the left half, and that of the right, lies in a row or in a column."""
    a, b, c, d = cells(name)
    return ("row" if a[0] == b[0] else "column", "row" if c[0] == d[0] else "column")


def gaussian_mixture_source(config: GaussianMixture, split: Split) -> LatticeSource:
    """Make the source; its rules fix the split, whose seed chooses among the laws.

    Args:
        config: How many laws of each split, and samples per law.
        split: Its seed picks the laws; its share has no say.

    Raises:
        ConfigError: If more unseen laws are asked for than there are. Seen ones come again, each
            time with samples of their own, as those of any family do that is drawn from at random.
    """
    chosen: dict[str, SplitName] = {}
    wanted: tuple[tuple[SplitName, int | None, tuple[tuple[Line, Line], ...]], ...] = (
        ("seen", config.seen, SEEN_RULES),
        ("unseen", config.unseen, UNSEEN_RULES),
    )
    for which, count, rules in wanted:
        names = [name for pair in rules for name in laws(*pair)]
        if which == "unseen" and count is not None and count > len(names):
            raise ConfigError(
                f"the lattice family has too few {which} laws",
                where=f"shards.source.{which}",
                got=count,
                expected=f"at most {len(names)}",
            )
        order = generator(split.seed, "lattice", which).permutation(len(names))
        total = len(names) if count is None else count
        for round_ in range(-(-total // len(names))):
            taken = sorted(order[: total - round_ * len(names)])
            suffix = f"+{round_}" if round_ else ""
            chosen.update({names[i] + suffix: which for i in taken})
    counts: dict[Role, int] = {"model": config.model, "reference": config.reference}
    return LatticeSource(splits=chosen, counts=counts)


@dataclass(frozen=True, kw_only=True)
class LatticeSource(PlaneLaws):
    """Points of laws on the lattice; a `Source`."""

    def draw(self, name: str, role: Role) -> NDArray[np.float32]:
        """Independent points of a law: (n, 2) float32 in [-3, 3]^2."""
        keyed = generator(_SEED, "lattice", name, role)
        corners = lower_corners(name)[keyed.integers(4, size=self.counts[role])]
        return (corners + keyed.random(corners.shape)).astype(np.float32)

    def audit(self) -> Mapping[str, Any]:
        """Laws per split and rule, and how many laws, as sets of cells, are in both splits."""
        sets: dict[SplitName, set[frozenset[Cell]]] = {"seen": set(), "unseen": set()}
        rules: Counter[str] = Counter()
        for name, split in self.splits.items():
            sets[split].add(frozenset(cells(name)))
            rules["-".join(rule(name))] += 1
        return {
            "laws": {split: len(members) for split, members in sets.items()},
            "rules": dict(rules),
            "seen_and_unseen": len(sets["seen"] & sets["unseen"]),
        }


def _pairs(line: Line, columns: range) -> list[tuple[Cell, Cell]]:
    if line == "row":
        return [((r, a), (r, b)) for r in range(6) for a, b in combinations(columns, 2)]
    return [((a, c), (b, c)) for c in columns for a, b in combinations(range(6), 2)]
