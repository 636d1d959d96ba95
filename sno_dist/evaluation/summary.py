"""The figures of summary.json, from the scores of all distributions.

Scores are put in the order of (method, split, name, K) first, so the summary does not depend on
which rank made which score. A figure that could not be measured is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sno_dist.errors import DataError
from sno_dist.evaluation import frechet, intervals
from sno_dist.evaluation.score import DistributionScores
from sno_dist.sampling.plan import size_label

__all__ = ["SPLITS", "summarise"]

SPLITS = ("seen", "unseen")
WORST = 5
"""Distributions that are named."""
FRECHET_GROUPS = 30
"""Groups that the Frechet distance's jackknife leaves out: each costs two eigenvalue problems."""

LEVEL = 0.05
"""Below which p-value a distribution counts as rejected; as many are by chance."""

Scores = Sequence[DistributionScores]

MEANS: Mapping[str, Callable[[DistributionScores], float | None]] = {
    "diversity": lambda score: score.diversity,
    "diversity_within": lambda score: score.diversity_within,
    "recall": lambda score: score.recall,
    "recall_ceiling": lambda score: score.real.recall_ceiling,
    "precision": lambda score: score.precision,
    "mmd": lambda score: score.mmd,
    "mmd_floor": lambda score: score.real.mmd_floor,
    "copying": lambda score: score.copying,
    "copying_chance": lambda score: score.copying_chance,
}
"""Figures that are a mean over distributions."""

BY_K = (
    "accuracy",
    "frechet",
    "diversity",
    "diversity_within",
    "recall",
    "mmd",
    "mmd_rejected",
    "copying",
    "copying_chance",
)
INTERVALS_BY_K = ("accuracy", "diversity_within")


def summarise(
    scores: Scores,
    *,
    population: str,
    guidance: Mapping[str, float],
    acceptance: float,
    seconds: float,
    bootstrap: int,
    seed: int,
) -> dict[str, Any]:
    """The flat, stable content of summary.json.

    Args:
        scores: Of every distribution, K and method, in any order.
        population: The family's name.
        guidance: K, as `size_label` writes it -> the weight that samples were drawn with.
        acceptance: The share of what was drawn that was kept.
        seconds: What drawing and judging the samples took.
        bootstrap: Resamples of the intervals.
        seed: The run's seed.

    Raises:
        DataError: If there are no scores.
    """
    if not scores:
        raise DataError("nothing to summarise", got="no scores", fix="sample at least one split")
    ordered = sorted(
        scores, key=lambda score: (score.method, score.split, score.name, _order(score.k))
    )
    summary: dict[str, Any] = {
        "population": population,
        "guidance": dict(guidance),
        "acceptance": acceptance,
        "seconds": seconds,
    }
    summary["mmd_bandwidth"] = next(iter(ordered[0].mmds))
    summary["frechet_features"] = len(ordered[0].moments.mean)
    summary |= _ceiling("classifier_ceiling", ordered, bootstrap, seed)
    methods = {
        method: _splits([score for score in ordered if score.method == method], bootstrap, seed)
        for method in dict.fromkeys(score.method for score in ordered)
    }
    summary |= methods.pop("operator", dict.fromkeys(SPLITS))
    if methods:
        summary["baselines"] = methods
    return summary


def _order(k: int | None) -> float:
    return float("inf") if k is None else k


def _splits(scores: Scores, bootstrap: int, seed: int) -> dict[str, Any]:
    """One method: a section for each split."""
    sections: dict[str, Any] = {}
    for split in SPLITS:
        own = [score for score in scores if score.split == split]
        sections[split] = _section(own, bootstrap, seed) if own else None
    return sections


def _section(scores: Scores, bootstrap: int, seed: int) -> dict[str, Any]:
    """One split: the figures at the largest K, floors and ceilings, and the figures by K."""
    ks = sorted({score.k for score in scores}, key=_order)
    cells = {}
    for k in ks:
        own = [score for score in scores if score.k == k]
        cells[size_label(k)] = _cell(own, _stream(own[0]), bootstrap, seed)
    full = [score for score in scores if score.k == ks[-1]]
    section = dict(cells[size_label(ks[-1])])
    section |= _frechet_bounds(full, section["frechet"])
    section |= _ceiling("ceiling", full, bootstrap, seed)
    section |= _by_bandwidth(full, _stream(full[0]), bootstrap, seed)
    section |= _rejected("mmd_rejected_floor", [score.real.p_value for score in full])
    section["k"] = size_label(ks[-1])
    section["distributions"] = len(full)
    section["worst"] = _worst(full)
    for figure in BY_K:
        section[f"{figure}_by_k"] = {k: cell[figure] for k, cell in cells.items()}
    for figure in INTERVALS_BY_K:
        bounds = {k: cell[f"{figure}_interval"] for k, cell in cells.items()}
        section[f"{figure}_by_k_interval"] = bounds
    return section


def _stream(score: DistributionScores) -> str:
    """What keys the resampling of one method, split and K."""
    method = "" if score.method == "operator" else f"{score.method}-"
    return f"{score.split}/{method}{size_label(score.k)}"


def _cell(scores: Scores, stream: str, bootstrap: int, seed: int) -> dict[str, Any]:
    """The figures of one split at one K."""
    cell: dict[str, Any] = {"samples": sum(score.n for score in scores)}
    cell["accuracy"], cell["accuracy_interval"] = _accuracy(scores, stream, bootstrap, seed)
    cell["frechet"] = frechet.between(*next(_pooled(scores)))
    for figure, read in MEANS.items():
        values = [value for score in scores if (value := read(score)) is not None]
        known = len(values) == len(scores)
        cell[figure] = float(np.mean(values)) if known else None
        cell[f"{figure}_interval"] = (
            _over_distributions(values, bootstrap, seed, f"{stream}/{figure}") if known else None
        )
    cell |= _rejected("mmd_rejected", [score.p_value for score in scores])
    return cell


def _over_distributions(
    values: Sequence[float], bootstrap: int, seed: int, stream: str
) -> list[float] | None:
    """The interval of a mean over distributions; none of one, which says nothing of others."""
    if len(values) < 2:
        return None
    return list(intervals.bootstrap_mean(values, bootstrap, seed, stream))


def _rejected(name: str, values: Sequence[float | None]) -> dict[str, Any]:
    """The share of distributions whose p-value is at most LEVEL, and its interval."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return {name: None, f"{name}_interval": None}
    count = sum(value <= LEVEL for value in known)
    interval = intervals.wilson(count, len(known))
    return {name: count / len(known), f"{name}_interval": list(interval)}


def _by_bandwidth(scores: Scores, stream: str, bootstrap: int, seed: int) -> dict[str, Any]:
    """MMD^2 at every bandwidth beside its floor, and where it is most above it."""
    found: dict[str, dict[str, Any]] = {}
    ratios: dict[float, float] = {}
    for width in scores[0].mmds:
        values = [score.mmds[width] for score in scores]
        mean = float(np.mean(values))
        floor = float(np.mean([score.real.mmd_floors[width] for score in scores]))
        # One stream for all: the same distributions are resampled at every bandwidth.
        interval = _over_distributions(values, bootstrap, seed, f"{stream}/mmd")
        found[f"{width:g}"] = {"mmd": mean, "floor": floor, "interval": interval}
        if floor > 0:
            ratios[width] = mean / floor
    worst = max(ratios, key=lambda width: ratios[width]) if ratios else None
    return {
        "mmd_by_bandwidth": found,
        "mmd_worst_ratio": None if worst is None else ratios[worst],
        "mmd_worst_bandwidth": worst,
    }


def _accuracy(
    scores: Scores, stream: str, bootstrap: int, seed: int
) -> tuple[float | None, list[float] | None]:
    """Accuracy and the wider of its two intervals.

    Over samples (Wilson) it keeps a width where every distribution is right; over distributions
    (bootstrap) it knows that samples of one distribution are alike.
    """
    correct = [score.correct for score in scores if score.correct is not None]
    if len(correct) < len(scores):
        return None, None
    total = sum(score.n for score in scores)
    over_samples = intervals.wilson(sum(correct), total)
    shares = [right / score.n for right, score in zip(correct, scores, strict=True)]
    over_distributions = intervals.bootstrap_mean(shares, bootstrap, seed, f"{stream}/accuracy")
    return sum(correct) / total, list(intervals.envelope(over_samples, over_distributions))


def _ceiling(name: str, scores: Scores, bootstrap: int, seed: int) -> dict[str, Any]:
    """The classifier's accuracy on real samples, each distribution's once and weighing the same.

    Its interval is the wider of two, as `_accuracy`'s.
    """
    real = {(score.split, score.name): score.real for score in scores}
    correct = [figures.correct for figures in real.values() if figures.correct is not None]
    if len(correct) < len(real):
        return {name: None, f"{name}_interval": None}
    shares = [right / own.n for right, own in zip(correct, real.values(), strict=True)]
    value, total = float(np.mean(shares)), sum(own.n for own in real.values())
    over_samples = intervals.wilson(value * total, total)
    stream = f"{'/'.join(sorted({split for split, _ in real}))}/{name}"
    over_distributions = intervals.bootstrap_mean(shares, bootstrap, seed, stream)
    return {
        name: value,
        f"{name}_interval": list(intervals.envelope(over_samples, over_distributions)),
    }


def _pooled(
    scores: Scores, kept: NDArray[np.bool_] | None = None
) -> Iterator[tuple[frechet.Moments, frechet.Moments]]:
    """Generated and real moments of all distributions, or of those kept, each weighing the same."""
    generated = frechet.pool_evenly([score.moments for score in scores], kept)
    return zip(generated, frechet.pool_evenly([s.real.moments for s in scores], kept), strict=True)


def _frechet_bounds(scores: Scores, value: float) -> dict[str, Any]:
    """The floor between two sets of real samples, and an interval over distributions.

    The distance of two samples of one law grows with the sum of one over their sizes, by which the
    floor is brought to those that are compared.
    """
    parts = [frechet.pool_evenly([s.real.parts[side] for s in scores])[0] for side in (0, 1)]
    apart = sum(1 / part.count for score in scores for part in score.real.parts)
    compared = sum(1 / score.n + 1 / score.real.n for score in scores)
    floor = frechet.between(*parts) * compared / apart
    bounds: dict[str, Any] = {"frechet_floor": floor, "frechet_interval": None}
    groups = min(len(scores), FRECHET_GROUPS)
    if groups > 1:
        kept = np.arange(len(scores)) % groups != np.arange(groups)[:, None]
        left_out = [frechet.between(*pair) for pair in _pooled(scores, kept)]
        bounds["frechet_interval"] = list(intervals.jackknife(value, left_out))
    return bounds


def _worst(scores: Scores) -> list[dict[str, Any]] | None:
    """The distributions of lowest accuracy, worst first; none without a classifier."""
    known = [(score.accuracy, score.name) for score in scores if score.accuracy is not None]
    if not known:
        return None
    return [{"name": name, "accuracy": accuracy} for accuracy, name in sorted(known)[:WORST]]
