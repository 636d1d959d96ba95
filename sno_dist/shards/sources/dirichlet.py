"""Compositions: many laws on the simplex, each a mixture of a few Dirichlet laws.

A law's parameters follow from its name and the split's seed alone, so that its density is known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sno_dist.config.schema import Dirichlet, Split
from sno_dist.runtime.rng import generator
from sno_dist.shards.sources.source import Distribution, Domain, Role
from sno_dist.shards.sources.split import SplitName

__all__ = ["DirichletSource", "Law", "dirichlet_source"]


def dirichlet_source(config: Dirichlet, split: Split) -> DirichletSource:
    """Make the source; it has as many seen and unseen laws as it is told.

    Args:
        config: The laws' form, how many of each split, and samples per law.
        split: Its seed draws the laws; its share has no say.
    """
    return DirichletSource(
        shares=config.shares,
        components=config.components,
        concentration=config.concentration,
        laws={"seen": config.seen, "unseen": config.unseen},
        counts={"model": config.model, "reference": config.reference},
        seed=split.seed,
    )


@dataclass(frozen=True, kw_only=True)
class Law:
    """A mixture of M Dirichlet laws of D shares.

    Args:
        weights: (M,), sum 1.
        concentrations: (M, D), above 0.
    """

    weights: NDArray[np.float64]
    concentrations: NDArray[np.float64]

    def sample(self, count: int, source: np.random.Generator) -> NDArray[np.float64]:
        """Independent compositions: (count, D)."""
        chosen = source.choice(len(self.weights), size=count, p=self.weights)
        parts = source.standard_gamma(self.concentrations[chosen])
        return parts / parts.sum(1, keepdims=True)

    def log_density(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        """Ln of the density in the first D - 1 shares, of (N, D) compositions above 0: (N,).

        Equation: sum_m w_m Gamma(sum_i a_mi) prod_i y_i^(a_mi - 1) / Gamma(a_mi).
        """
        own = self.concentrations
        sizes = [math.lgamma(row.sum()) - sum(map(math.lgamma, row)) for row in own]
        logs = np.log(y) @ (own - 1).T + np.log(self.weights) + np.array(sizes)
        return np.logaddexp.reduce(logs, axis=1)


@dataclass(frozen=True, kw_only=True)
class DirichletSource:
    """Compositions of laws on the simplex; a `Source`.

    Args:
        shares: D.
        components: Dirichlet laws in each mixture.
        concentration: Least and most of c; a component's concentrations are 1 + c m.
        laws: How many of each split.
        counts: Samples per law in each role.
        seed: Of the laws and their samples.
    """

    shares: int
    components: int
    concentration: tuple[float, float]
    laws: Mapping[SplitName, int]
    counts: Mapping[Role, int]
    seed: int

    @property
    def domain(self) -> Domain:
        """Vectors."""
        return "vector"

    @property
    def shape(self) -> tuple[int, ...]:
        """(D,)."""
        return (self.shares,)

    @property
    def roles(self) -> Sequence[Role]:
        """No classifier: the law's density is known."""
        return tuple(self.counts)

    def distributions(self) -> Sequence[Distribution]:
        """The laws, seen ones first."""
        return [
            Distribution(name=f"{split}-{index:05d}", split=split)
            for split, count in self.laws.items()
            for index in range(count)
        ]

    def law(self, name: str) -> Law:
        """The parameters of one law."""
        keyed = generator(self.seed, "dirichlet", name, "law")
        weights = keyed.dirichlet(np.full(self.components, 2.0))
        means = keyed.dirichlet(np.ones(self.shares), self.components)
        low, high = np.log(self.concentration)
        scale = np.exp(keyed.uniform(low, high, (self.components, 1)))
        return Law(weights=weights, concentrations=1 + scale * means)

    def draw(self, name: str, role: Role) -> NDArray[np.float32]:
        """Independent compositions of a law: (n, D) float32, above 0."""
        keyed = generator(self.seed, "dirichlet", name, role)
        return self.law(name).sample(self.counts[role], keyed).astype(np.float32)

    def audit(self) -> Mapping[str, Any]:
        """Laws per split, and how many laws, by their parameters, are in both."""
        found: dict[SplitName, set[bytes]] = {"seen": set(), "unseen": set()}
        for distribution in self.distributions():
            assert distribution.split is not None
            concentrations = self.law(distribution.name).concentrations
            found[distribution.split].add(concentrations.tobytes())
        return {
            "laws": {split: len(members) for split, members in found.items()},
            "seen_and_unseen": len(found["seen"] & found["unseen"]),
        }
