"""One pass over the seen distributions: what is a sum or an extreme over samples, over ranks.

Each distribution is read whole by one rank, so every figure has the same bits for every number
of ranks. Features cross ranks as sums; samples do only to be anchors or to tell the median.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sno_dist.embedding.feature_map import FeatureMap
from sno_dist.embedding.features import Sums
from sno_dist.embedding.kernels import Kernel
from sno_dist.embedding.pairs import median_bandwidth
from sno_dist.embedding.sets import SampleSets
from sno_dist.runtime import collectives
from sno_dist.runtime.share import share_of

__all__ = ["evenly", "extent", "feature_sums", "median_distance", "self_similarity"]

CHUNK_BYTES = 64 << 20
"""Features held at a time."""
MEDIAN_SAMPLES = 2000


def feature_sums(feature_map: FeatureMap, sets: SampleSets) -> Sums:
    """Sums of features over the samples of each of N sets, (N, m) and (N,), on every rank.

    They merge: those of other shards, ranks or sites add to them, and samples that are taken
    back subtract. Cost: O(N n m).

    Args:
        feature_map: What is summed.
        sets: The samples.

    Raises:
        Preempted: If the run was asked to stop.

    **Collective.**
    """
    chunk = max(1, CHUNK_BYTES // (8 * feature_map.size))

    def summed(rows: Tensor) -> Tensor:
        parts = [feature_map.sums(part, torch.tensor([len(part)])) for part in rows.split(chunk)]
        return sum(parts[1:], parts[0]).total[0]

    total = _over_sets(sets, feature_map.size, summed, "summing features")
    return Sums(total=total, count=torch.tensor(sets.lengths).to(total))


def self_similarity(kernel: Kernel, sets: SampleSets) -> Tensor:
    """The mean of k(x, x) over each set: (N,). **Collective.**"""
    return _over_sets(
        sets, 1, lambda rows: kernel.diagonal(rows).mean()[None], "measuring the kernel"
    )[:, 0]


def extent(sets: SampleSets) -> Tensor:
    """Largest minus smallest coordinate over all samples: (D,). **Collective.**"""
    ends = _over_sets(
        sets,
        2 * sets.dims,
        lambda rows: torch.cat([rows.amin(0), rows.amax(0)]),
        "measuring the data's range",
    )
    return ends[:, sets.dims :].amax(0) - ends[:, : sets.dims].amin(0)


def median_distance(sets: SampleSets) -> float:
    """The median distance between samples, taken evenly over all distributions. **Collective.**

    Raises:
        DataError: If the samples do not differ.
    """
    return median_bandwidth(evenly(sets, MEDIAN_SAMPLES), MEDIAN_SAMPLES)


def evenly(sets: SampleSets, count: int) -> Tensor:
    """Samples spread evenly over the distributions, `count` at most: (m, D). **Collective.**

    Where there are more distributions than samples, every few of them give one each; a small
    distribution gives all it has.
    """
    places = torch.linspace(0, len(sets) - 1, min(count, len(sets)), dtype=torch.float64)
    chosen = sorted(set(places.round().long().tolist()))
    most = _level([sets.lengths[row] for row in chosen], count)
    shares = [min(most, sets.lengths[row]) for row in chosen]
    found = torch.zeros(sum(shares), sets.dims, dtype=torch.float64)
    parts = found.split(shares)
    for place in collectives.world().deal(len(chosen)):
        parts[place].copy_(sets.take(chosen[place], shares[place]))
    return collectives.sum_over_ranks(found, "gathering samples")


def _level(lengths: Sequence[int], count: int) -> int:
    """The most that each may give for `count` in all, or all there are; one at least."""
    level = 0
    for place, length in enumerate(sorted(lengths)):
        givers = len(lengths) - place
        if (length - level) * givers > count:
            level += count // givers
            break
        count -= (length - level) * givers
        level = length
    return max(1, level)


def _over_sets(
    sets: SampleSets, entries: int, measure: Callable[[Tensor], Tensor], phase: str
) -> Tensor:
    """What `measure` says of each set's (n, D) samples, (N, entries), on every rank."""
    found = torch.zeros(len(sets), entries, dtype=torch.float64)
    for item in share_of(range(len(sets)), phase):
        found[item] = measure(sets.take(item)).cpu()
    return collectives.sum_over_ranks(found, phase)
