"""Two glyphs side by side: the 100 distributions 00..99, from pools that share no glyph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sno_dist.errors import DataError
from sno_dist.runtime.rng import generator
from sno_dist.shards.sources.resize import resize
from sno_dist.shards.sources.source import ROLES, Distribution, Domain, Role
from sno_dist.shards.sources.split import SplitName

__all__ = ["NAMES", "PairSource", "Pool", "choose_pairs", "split_glyphs"]

Pool = Literal["seen", "unseen", "judge", "reference"]
"""`seen`: all that trains the operator; `unseen`: contexts of distributions never trained on;
`judge`: trains the classifier; `reference`: real held-out pairs."""

NAMES: tuple[str, ...] = tuple(f"{i:02d}" for i in range(100))

_SEED = 0  # of the raw material, not of a run: the pools are a property of the population


def split_glyphs(
    images: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    shares: Mapping[Pool, float],
    stream: str,
) -> dict[Pool, tuple[NDArray[np.uint8], ...]]:
    """Deal the glyphs of every digit to pools, in the same shares for each digit.

    Args:
        images: (n, h, w).
        labels: (n,), the digit of each image.
        shares: The share of each pool; they add to 1.
        stream: What the glyphs are, to key the permutation.

    Returns:
        For each pool, the ten digits' glyphs, (g, h, w) each.

    Raises:
        DataError: If a digit has too few glyphs to leave one in every pool.
    """
    pools: dict[Pool, list[NDArray[np.uint8]]] = {pool: [] for pool in shares}
    ends = np.cumsum(list(shares.values()))
    for digit in range(10):
        glyphs = images[labels == digit]
        order = generator(_SEED, "glyphs", stream, digit).permutation(len(glyphs))
        cuts = np.rint(ends[:-1] * len(glyphs)).astype(int)
        for pool, rows in zip(shares, np.split(order, cuts), strict=True):
            if not len(rows):
                raise DataError(
                    f"too few glyphs of digit {digit} in {stream}",
                    got=len(glyphs),
                    expected=f"enough for one in each of: {', '.join(shares)}",
                )
            pools[pool].append(glyphs[rows])
    return {pool: tuple(glyphs) for pool, glyphs in pools.items()}


def choose_pairs(
    left: int, right: int, count: int, source: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Index pairs: distinct where there are enough, else uniform with replacement.

    Args:
        left: Glyphs to choose the left one from.
        right: Glyphs to choose the right one from.
        count: Pairs wanted.
        source: The random numbers.

    Returns:
        Two arrays of (count,): left and right indices.
    """
    total = left * right
    index = source.choice(total, count, replace=count > total)
    return index // right, index % right


@dataclass(frozen=True, kw_only=True, eq=False)
class PairSource:
    """Images of two digits; a `Source`.

    Args:
        shape: (1, H, W) of a sample; a pair of another size is resized.
        glyphs: For each pool, the ten digits' glyphs, (g, h, w) uint8 each.
        counts: Samples per distribution in each role.
        splits: Which distributions are unseen: their contexts come from a pool of their own.
    """

    shape: tuple[int, ...]
    glyphs: Mapping[Pool, Sequence[NDArray[np.uint8]]]
    counts: Mapping[Role, int]
    splits: Mapping[str, SplitName]

    @property
    def domain(self) -> Domain:
        """Images."""
        return "image"

    @property
    def roles(self) -> Sequence[Role]:
        """All three."""
        return ROLES

    def distributions(self) -> Sequence[Distribution]:
        """00..99, with their split."""
        return [Distribution(name=name, split=self.splits[name]) for name in NAMES]

    def pool(self, name: str, role: Role) -> Pool:
        """The pool that a distribution's samples in a role are made of."""
        return self.splits[name] if role == "model" else role

    def draw(self, name: str, role: Role) -> NDArray[np.uint8]:
        """The pairs of one distribution in one role: (n, 1, H, W) uint8, ink bright on 0."""
        pool = self.pool(name, role)
        left, right = (self.glyphs[pool][int(digit)] for digit in name)
        keyed = generator(_SEED, "pairs", name, pool)
        i, j = choose_pairs(len(left), len(right), self.counts[role], keyed)
        pairs = np.concatenate([left[i], right[j]], axis=2)
        return resize(pairs, *self.shape[1:])[:, None]

    def audit(self) -> Mapping[str, Any]:
        """Glyphs per pool, and how many are pixel for pixel in two pools, for each two pools."""
        pixels = {
            pool: {glyph.tobytes() for digit in digits for glyph in digit}
            for pool, digits in self.glyphs.items()
        }
        shared = {f"{a}+{b}": len(pixels[a] & pixels[b]) for a, b in combinations(pixels, 2)}
        return {
            "glyphs": {pool: sum(map(len, digits)) for pool, digits in self.glyphs.items()},
            "shared": shared,
            "shared_total": sum(shared.values()),
        }
