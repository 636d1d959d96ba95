"""The scores of one distribution: computed on one rank, from that distribution's arrays alone.

    real = reference(images, classifier=judge, label=42, bandwidth=3.1, neighbours=3)
    scores = [score_distribution(drawn[k], real, classifier=judge, name="42", ...) for k in ks]

What depends on the real samples alone is measured once, in a `Reference`, and serves every K.
Accuracy, diversity, recall, precision and Frechet moments are of the classifier's features (of
the data where there is no classifier); MMD and copying are of the data themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sno_dist.embedding.kernels import kernel_mean
from sno_dist.evaluation import diversity, mmd
from sno_dist.evaluation.frechet import Moments, moments
from sno_dist.evaluation.rows import as_rows

if TYPE_CHECKING:  # vector data has no judge, and needs no transformers
    from sno_dist.judge.classifier import Classifier

__all__ = [
    "Contexts",
    "DistributionScores",
    "RealFigures",
    "Reference",
    "reference",
    "score_distribution",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Contexts:
    """The context sets that one distribution's samples were drawn for.

    Args:
        sets: G context sets, each (K, ...), in the same units as the samples.
        groups: (n,) integers, 0 <= g < G: whose samples are whose.
    """

    sets: Sequence[NDArray[Any]]
    groups: NDArray[np.integer]

    @property
    def size(self) -> int:
        """K: samples in one context set."""
        return len(self.sets[0])


@dataclass(frozen=True, kw_only=True, slots=True)
class RealFigures:
    """What real held-out samples score: floors and ceilings of one distribution.

    Args:
        n: Real samples.
        correct: Those that the classifier names rightly; none without a classifier.
        mmd_floor: |MMD^2| between two halves.
        recall_ceiling: Share of one half in the manifold of the other.
        moments: Feature moments of all of them.
        halves: Feature moments of two halves.
    """

    n: int
    correct: int | None
    mmd_floor: float
    recall_ceiling: float
    moments: Moments
    halves: tuple[Moments, Moments]


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """One distribution's real samples, measured once and compared with every generated set.

    Args:
        samples: (m, d) float64 rows.
        features: (m, F) float64.
        label: The classifier's class of this distribution; none without a classifier.
        bandwidth: The kernel's length scale, in data units.
        neighbours: k of the manifolds.
        kernel_mean: Mean kernel value over all m^2 pairs.
        spread: Mean distance between features.
        radii: (m,) squared radii of the feature manifold.
        figures: The floors and ceilings.
    """

    samples: NDArray[np.float64]
    features: NDArray[np.float64]
    label: int | None
    bandwidth: float
    neighbours: int
    kernel_mean: float
    spread: float
    radii: NDArray[np.float64]
    figures: RealFigures


@dataclass(frozen=True, kw_only=True, slots=True)
class DistributionScores:
    """How good the samples of one distribution at one K are.

    Args:
        name: The distribution.
        split: "seen" or "unseen".
        k: Context samples asked for; none: all there were.
        n: Generated samples.
        correct: Those that the classifier names rightly; none without a classifier.
        diversity: Spread over that of real samples.
        recall: Share of real samples in the manifold of generated ones.
        precision: Share of generated samples in the manifold of real ones.
        mmd: Unbiased MMD^2 against the real samples; may be a little below 0.
        copying: Share whose nearest neighbour is a context sample of theirs; none if unknown.
        copying_chance: The same for a perfect model.
        moments: Feature moments of the generated samples.
        real: What the real samples score; one object for every K of the distribution.
    """

    name: str
    split: str
    k: int | None
    n: int
    correct: int | None
    diversity: float
    recall: float
    precision: float
    mmd: float
    copying: float | None
    copying_chance: float | None
    moments: Moments
    real: RealFigures

    @property
    def accuracy(self) -> float | None:
        """The share that the classifier names rightly; none without a classifier."""
        return None if self.correct is None else self.correct / self.n


def reference(
    real: NDArray[Any],
    *,
    classifier: Classifier | None,
    label: int | None,
    bandwidth: float,
    neighbours: int,
) -> Reference:
    """Measure one distribution's real held-out samples.

    Args:
        real: (m, ...) samples, m >= 2 (neighbours + 1); images as bytes or in [0, 1].
        classifier: The judge; none: features are the data, and there is no accuracy.
        label: This distribution's class for the judge; none without one.
        bandwidth: The kernel's length scale, in data units (images: of [0, 1]).
        neighbours: k of the manifolds.

    Raises:
        DataError: If there are too few samples, they are all equal, or a value is not finite.
    """
    rows = as_rows(real, "real samples", 2 * (neighbours + 1))
    features, correct = _judge(real, rows, classifier, label)
    halves = features[0::2], features[1::2]
    radii = diversity.neighbour_radii(halves[1], neighbours)
    figures = RealFigures(
        n=len(rows),
        correct=correct,
        mmd_floor=mmd.floor(rows, bandwidth),
        recall_ceiling=diversity.coverage(halves[0], halves[1], radii),
        moments=moments(features),
        halves=(moments(halves[0]), moments(halves[1])),
    )
    return Reference(
        samples=rows,
        features=features,
        label=label,
        bandwidth=bandwidth,
        neighbours=neighbours,
        kernel_mean=kernel_mean(rows, rows, bandwidth),
        spread=diversity.positive_spread(features),
        radii=diversity.neighbour_radii(features, neighbours),
        figures=figures,
    )


def score_distribution(
    generated: NDArray[Any],
    real: Reference,
    contexts: Contexts | None = None,
    *,
    classifier: Classifier | None,
    name: str,
    split: str,
    k: int | None,
) -> DistributionScores:
    """Compare one distribution's generated samples with its real ones.

    Args:
        generated: (n, ...) samples, n > neighbours; images as bytes or in [0, 1].
        real: The measured real samples.
        contexts: The context sets they were drawn for; none: copying is not measured.
        classifier: The judge that `real` was measured with.
        name: The distribution.
        split: "seen" or "unseen".
        k: Context samples asked for; none: all there were.

    Raises:
        DataError: If there are too few samples, or a value is not finite.
    """
    rows = as_rows(generated, f"generated samples of {name}", real.neighbours + 1)
    features, correct = _judge(generated, rows, classifier, real.label)
    radii = diversity.neighbour_radii(features, real.neighbours)
    means = kernel_mean(rows, rows, real.bandwidth), kernel_mean(rows, real.samples, real.bandwidth)
    n, m = len(rows), len(real.samples)
    return DistributionScores(
        name=name,
        split=split,
        k=k,
        n=n,
        correct=correct,
        diversity=diversity.spread(features) / real.spread,
        recall=diversity.coverage(real.features, features, radii),
        precision=diversity.coverage(features, real.features, real.radii),
        mmd=mmd.combine(means[0], real.kernel_mean, means[1], n=n, m=m),
        copying=_copying(rows, contexts, real),
        copying_chance=None if contexts is None else diversity.copying_chance(contexts.size, m),
        moments=moments(features),
        real=real.figures,
    )


def _copying(rows: NDArray[np.float64], contexts: Contexts | None, real: Reference) -> float | None:
    if contexts is None:
        return None
    return diversity.copying_rate(rows, contexts.sets, contexts.groups, real.samples)


def _judge(
    samples: NDArray[Any],
    rows: NDArray[np.float64],
    classifier: Classifier | None,
    label: int | None,
) -> tuple[NDArray[np.float64], int | None]:
    """Features, and how many samples are named `label`."""
    if classifier is None:
        return rows, None
    verdict = classifier.judge(samples)
    correct = None if label is None else int((verdict.labels == label).sum())
    return verdict.features.astype(np.float64), correct
