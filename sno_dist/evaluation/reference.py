"""What the real held-out samples of one distribution score: floors and ceilings, measured once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sno_dist.config.schema import Config
from sno_dist.embedding.kernels import Gaussian, Kernel
from sno_dist.errors import ConfigError, DataError
from sno_dist.evaluation import diversity, mmd
from sno_dist.evaluation.frechet import Moments, moments
from sno_dist.evaluation.permutation import permutation_p_value
from sno_dist.evaluation.rows import as_rows
from sno_dist.runtime.rng import generator
from sno_dist.sampling.plan import plan_units
from sno_dist.shards.manifest import Entry, Manifest

if TYPE_CHECKING:  # vector data has no judge, and needs no transformers
    from sno_dist.judge.classifier import Classifier

__all__ = ["Comparison", "RealFigures", "Reference", "check_counts", "judged", "reference"]


def check_counts(config: Config, manifest: Manifest) -> None:
    """Refuse too few samples for the figures, before any are drawn.

    Raises:
        DataError: Naming the distribution with the fewest held-out samples; as `plan_units`.
        ConfigError: If too few samples are to be drawn.
    """
    neighbours = config.evaluation.neighbours
    if config.sampling.samples <= neighbours:
        raise ConfigError(
            "fewer samples are to be drawn than the figures need",
            where="sampling.samples",
            got=config.sampling.samples,
            expected=f"more than evaluation.neighbours={neighbours}",
        )
    units = plan_units(config.sampling, manifest, unseen=config.embedding.kind != "conditional")
    sampled = chain.from_iterable(unit.entries for unit in units)
    lower = "set evaluation.neighbours=1, or " * (neighbours > 1)
    what_for = f"for evaluation.neighbours={neighbours}"
    _check_held_out(sampled, 2 * (neighbours + 1), what_for, lower)
    if config.evaluation.bandwidths is None:
        _check_held_out(manifest.entries, 2, "for the median distance, of which bandwidths are")


def _check_held_out(entries: Iterable[Entry], need: int, what_for: str, lower: str = "") -> None:
    least = min(entries, key=lambda entry: entry.count("reference"))
    if least.count("reference") < need:
        raise DataError(
            "a distribution has too few held-out samples to compare with",
            where=f"distribution {least.name}, role reference",
            got=least.count("reference"),
            expected=f"at least {need}, {what_for}",
            fix=f"{lower}raise the source's share or number of reference "
            "samples, or leave the distribution out",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """How two sample sets are compared, the same for all distributions.

    Args:
        bandwidths: MMD's length scales in the samples' units (images: of [0, 1]), at least one;
            the first is that of the headline figure and of the permutation test.
        neighbours: k of the manifolds.
        permutations: Of the permutation test; 0: there is none.
        seed: The run's.
    """

    bandwidths: tuple[float, ...]
    neighbours: int = 3
    permutations: int = 0
    seed: int = 0

    @property
    def kernels(self) -> Mapping[float, Kernel]:
        """Bandwidth -> kernel, in order."""
        return {bandwidth: Gaussian(bandwidth) for bandwidth in self.bandwidths}

    def p_value(self, x: NDArray[Any], y: NDArray[Any], *ids: str) -> float | None:
        """The permutation test's p-value at the first bandwidth; none without permutations.

        Args:
            x: (n, ...) samples.
            y: (m, ...) samples.
            ids: Split, name and label of the comparison, which key its random numbers.
        """
        if not self.permutations:
            return None
        source = generator(self.seed, "permutation", *ids)
        return permutation_p_value(x, y, Gaussian(self.bandwidths[0]), self.permutations, source)


@dataclass(frozen=True, kw_only=True, slots=True)
class RealFigures:
    """What real held-out samples score: floors and ceilings of one distribution.

    Args:
        n: Real samples.
        correct: Those that the classifier names rightly; none without a classifier.
        mmd_floors: Bandwidth -> |MMD^2| between two sets, see `mmd.part`.
        p_value: Of the permutation test between the same two sets; none without permutations.
        recall_ceiling: Share of one set in the manifold of another, see `mmd.part`: of as many as
            are generated, but half of the real ones at most. A recall of more than these is of a
            closer-knit manifold, and is a little higher or lower for it.
        moments: Feature moments of all of them.
        parts: Feature moments of these two sets.
    """

    n: int
    correct: int | None
    mmd_floors: Mapping[float, float]
    p_value: float | None
    recall_ceiling: float
    moments: Moments
    parts: tuple[Moments, Moments]

    @property
    def mmd_floor(self) -> float:
        """The floor at the headline bandwidth."""
        return next(iter(self.mmd_floors.values()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """One distribution's real samples, measured once and compared with every generated set.

    Args:
        name: The distribution.
        split: "seen" or "unseen".
        samples: (m, d) float64 rows.
        features: (m, F) float64.
        label: The classifier's class of this distribution; none without a classifier.
        comparison: How they are compared.
        within: Bandwidth -> mean kernel value over pairs of distinct samples.
        spread: Mean distance between features.
        radii: (m,) squared radii of the feature manifold.
        figures: The floors and ceilings.
    """

    name: str
    split: str
    samples: NDArray[np.float64]
    features: NDArray[np.float64]
    label: int | None
    comparison: Comparison
    within: Mapping[float, float]
    spread: float
    radii: NDArray[np.float64]
    figures: RealFigures


def reference(
    real: NDArray[Any],
    *,
    name: str,
    split: str,
    size: int,
    classifier: Classifier | None,
    label: int | None,
    comparison: Comparison,
) -> Reference:
    """Measure one distribution's real held-out samples.

    Args:
        real: (m, ...) samples, m >= 2 (neighbours + 1); images as bytes or in [0, 1].
        name: The distribution.
        split: "seen" or "unseen".
        size: Generated samples that they will be compared with, which the floors are to match.
        classifier: The judge; none: features are the data, and there is no accuracy.
        label: This distribution's class for the judge; none without one.
        comparison: How they are compared.

    Raises:
        DataError: If there are too few samples, they are all equal, or a value is not finite.
    """
    neighbours = comparison.neighbours
    rows = as_rows(real, f"real samples of {name}", 2 * (neighbours + 1))
    features, correct = judged(real, rows, classifier, label)
    first, second = mmd.part(features, max(size, neighbours + 1))
    radii = diversity.neighbour_radii(first, neighbours)
    kernels = comparison.kernels
    figures = RealFigures(
        n=len(rows),
        correct=correct,
        mmd_floors={width: mmd.floor(rows, kernel, size) for width, kernel in kernels.items()},
        p_value=comparison.p_value(*mmd.part(rows, size), split, name, "real"),
        recall_ceiling=diversity.coverage(second, first, radii),
        moments=moments(features),
        parts=(moments(first), moments(second)),
    )
    return Reference(
        name=name,
        split=split,
        samples=rows,
        features=features,
        label=label,
        comparison=comparison,
        within={width: mmd.within(rows, kernel) for width, kernel in kernels.items()},
        spread=diversity.positive_spread(features, f"real samples of {name}"),
        radii=diversity.neighbour_radii(features, neighbours),
        figures=figures,
    )


def judged(
    samples: NDArray[Any],
    rows: NDArray[np.float64],
    classifier: Classifier | None,
    label: int | None,
) -> tuple[NDArray[np.float64], int | None]:
    """Features, and how many samples are named `label`; the rows and none without a classifier."""
    if classifier is None:
        return rows, None
    verdict = classifier.judge(samples)
    correct = None if label is None else int((verdict.labels == label).sum())
    return verdict.features.astype(np.float64), correct
