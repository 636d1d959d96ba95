"""The scores of one distribution: computed on one rank, from that distribution's arrays alone.

    comparison = Comparison(bandwidths=(3.1,))
    real = reference(images, name="42", split="seen", comparison=comparison, ...)
    scores = [score_distribution(drawn[k], real, classifier=judge, k=k) for k in ks]

What depends on the real samples alone is measured once, in a `Reference`, and serves every K and
every method. Accuracy, diversity, recall, precision and Frechet moments are of the classifier's
features (of the data where there is no classifier); MMD and copying are of the data themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sno_dist.embedding.pairs import kernel_mean
from sno_dist.evaluation import diversity, mmd
from sno_dist.evaluation.frechet import Moments, moments
from sno_dist.evaluation.reference import RealFigures, Reference, judged
from sno_dist.evaluation.rows import as_rows
from sno_dist.sampling.plan import Method, label

if TYPE_CHECKING:  # vector data has no judge, and needs no transformers
    from sno_dist.judge.classifier import Classifier

__all__ = ["Contexts", "DistributionScores", "score_distribution"]


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
class DistributionScores:
    """How good one method's samples of one distribution at one K are.

    Args:
        name: The distribution.
        split: "seen" or "unseen".
        k: Context samples asked for; none: all there were.
        method: What drew them: "operator", or a baseline.
        n: Generated samples.
        correct: Those that the classifier names rightly; none without a classifier.
        diversity: Spread over that of real samples.
        diversity_within: Spread of the samples of one context set, the mean over context sets, over
            that of real samples; none if unknown.
        recall: Share of real samples in the manifold of generated ones.
        precision: Share of generated samples in the manifold of real ones.
        mmds: Bandwidth -> unbiased MMD^2 against the real samples, which may be a little below 0.
        p_value: Of the permutation test at the first bandwidth; none without permutations.
        copying: Share whose nearest neighbour is a context sample of theirs; none if unknown.
        copying_chance: The same for a perfect model.
        moments: Feature moments of the generated samples.
        real: What the real samples score; one object for every K and method of the distribution.
    """

    name: str
    split: str
    k: int | None
    method: Method = "operator"
    n: int
    correct: int | None
    diversity: float
    diversity_within: float | None
    recall: float
    precision: float
    mmds: Mapping[float, float]
    p_value: float | None
    copying: float | None
    copying_chance: float | None
    moments: Moments
    real: RealFigures

    @property
    def accuracy(self) -> float | None:
        """The share that the classifier names rightly; none without a classifier."""
        return None if self.correct is None else self.correct / self.n

    @property
    def mmd(self) -> float:
        """MMD^2 at the headline bandwidth, the first."""
        return next(iter(self.mmds.values()))


def score_distribution(
    generated: NDArray[Any],
    real: Reference,
    contexts: Contexts | None = None,
    *,
    classifier: Classifier | None,
    k: int | None,
    method: Method = "operator",
) -> DistributionScores:
    """Compare one distribution's generated samples with its real ones.

    Args:
        generated: (n, ...) samples, n > neighbours; images as bytes or in [0, 1].
        real: The measured real samples.
        contexts: The context sets they were drawn for; none: copying is not measured.
        classifier: The judge that `real` was measured with.
        k: Context samples asked for; none: all there were.
        method: What drew them.

    Raises:
        DataError: If there are too few samples, or a value is not finite.
    """
    comparison = real.comparison
    rows = as_rows(generated, f"generated samples of {real.name}", comparison.neighbours + 1)
    features, correct = judged(generated, rows, classifier, real.label)
    radii = diversity.neighbour_radii(features, comparison.neighbours)
    m = len(real.samples)
    return DistributionScores(
        name=real.name,
        split=real.split,
        k=k,
        method=method,
        n=len(rows),
        correct=correct,
        diversity=diversity.spread(features) / real.spread,
        diversity_within=_within(features, contexts, real),
        recall=diversity.coverage(real.features, features, radii),
        precision=diversity.coverage(features, real.features, real.radii),
        mmds={
            width: mmd.within(rows, kernel)
            + real.within[width]
            - 2 * kernel_mean(rows, real.samples, kernel)
            for width, kernel in comparison.kernels.items()
        },
        p_value=comparison.p_value(rows, real.samples, real.split, real.name, label(k, method)),
        copying=_copying(rows, contexts, real),
        copying_chance=None if contexts is None else diversity.copying_chance(contexts.size, m),
        moments=moments(features),
        real=real.figures,
    )


def _within(
    features: NDArray[np.float64], contexts: Contexts | None, real: Reference
) -> float | None:
    if contexts is None:
        return None
    value = diversity.spread_within(features, contexts.groups)
    return None if value is None else value / real.spread


def _copying(rows: NDArray[np.float64], contexts: Contexts | None, real: Reference) -> float | None:
    if contexts is None:
        return None
    return diversity.copying_rate(rows, contexts.sets, contexts.groups, real.samples)
