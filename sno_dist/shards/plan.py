"""Which samples every step sees: a pure function of (seed, step), the same in every world.

Nothing here knows ranks, workers or what was read before, so a run resumed at step t needs no
replay, and any slot's draw can be computed alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sno_dist.errors import DataError
from sno_dist.runtime.rng import generator

__all__ = ["Draw", "StepPlan"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Draw:
    """One distribution's part in a step.

    Args:
        slot: Its place in the global batch, 0 <= slot < P.
        row: Which seen distribution.
        context: (K,) sample indices that give u.
        targets: (B,) sample indices that the loss is computed on; none is in the context.
        references: (R,) further ones that the loss may compare the targets with.
    """

    slot: int
    row: int
    context: NDArray[np.int64]
    targets: NDArray[np.int64]
    references: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class StepPlan:
    """The plan of a run.

    Args:
        seed: The run's seed.
        counts: Samples of each seen distribution.
        distributions: P, slots of a global batch.
        targets: B.
        references: R.
        context: Smallest and largest K, which never takes the targets' share of a small
            distribution.
        exponent: K's density falls as K^-exponent; 1: log-uniform.
    """

    seed: int
    counts: Sequence[int]
    distributions: int
    targets: int
    references: int
    context: tuple[int, int]
    exponent: float = 1.0

    def check(self, names: Sequence[str]) -> None:
        """Refuse a distribution that cannot fill one slot.

        Raises:
            DataError: Naming the first one that has fewer than min K + B + R samples.
        """
        need = self.context[0] + self.targets + self.references
        for name, count in zip(names, self.counts, strict=True):
            if count < need:
                raise DataError(
                    "a distribution is smaller than its context set and targets",
                    where=f"distribution {name}",
                    got=f"{count} samples",
                    expected=f"at least {self.context[0]} + {self.targets + self.references}",
                    fix="lower training.targets, references or context, or drop the distribution",
                )

    def draw(self, step: int, slot: int) -> Draw:
        """The draw of one slot of one step.

        Distributions come in shuffled rounds: each is used once before any is used again.
        """
        row, source = self._row(step, slot), self._source(step, slot)
        size = self._context_size(row, source)
        chosen = source.choice(
            self.counts[row], size + self.targets + self.references, replace=False
        )
        context, targets, references = np.split(chosen, [size, size + self.targets])
        return Draw(slot=slot, row=row, context=context, targets=targets, references=references)

    def context_sizes(self, step: int) -> list[int]:
        """K of every slot of one step, at a fraction of the cost of their draws."""
        return [
            self._context_size(self._row(step, slot), self._source(step, slot))
            for slot in range(self.distributions)
        ]

    def _row(self, step: int, slot: int) -> int:
        cycle, offset = divmod(step * self.distributions + slot, len(self.counts))
        return int(_order(self.seed, cycle, len(self.counts))[offset])

    def _source(self, step: int, slot: int) -> np.random.Generator:
        return generator(self.seed, "plan", step, slot)

    def _context_size(self, row: int, source: np.random.Generator) -> int:
        low, high = self.context
        drawn = _power_law(source.random(), low, high + 1, self.exponent)
        return min(high, int(drawn), self.counts[row] - self.targets - self.references)


def _power_law(uniform: float, low: float, high: float, exponent: float) -> float:
    """The quantile of the density that falls as x^-exponent on [low, high)."""
    rest = 1 - exponent
    if rest == 0:
        return math.exp(math.log(low) + uniform * math.log(high / low))
    return (low**rest + uniform * (high**rest - low**rest)) ** (1 / rest)


@lru_cache(maxsize=4)
def _order(seed: int, cycle: int, count: int) -> NDArray[np.int64]:
    return generator(seed, "order", cycle).permutation(count)
