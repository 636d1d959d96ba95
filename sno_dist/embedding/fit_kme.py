"""Fitting a kernel mean embedding: its kernel, its feature map, its principal components."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sno_dist.config import schema
from sno_dist.diffusion.axes import Circle
from sno_dist.embedding import stream
from sno_dist.embedding.factory import make_feature_map, make_kernel, wants_median
from sno_dist.embedding.feature_map import FeatureMap
from sno_dist.embedding.features import Sums
from sno_dist.embedding.fit_map import fit_map
from sno_dist.embedding.gram import gram_matrix
from sno_dist.embedding.heat import HeatKernel
from sno_dist.embedding.kernels import Kernel
from sno_dist.embedding.pairs import pair_sums
from sno_dist.embedding.pca import RkhsPca, feature_pca, gram_pca
from sno_dist.embedding.sets import SampleSets
from sno_dist.errors import ConfigError
from sno_dist.runtime import collectives
from sno_dist.runtime.progress import say

__all__ = ["FittedKme", "fit_kme"]

PROBED, PROBE = 8, 500
"""Distributions, and samples of each, on which feature forms are compared with exact values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedKme:
    """What a fit gives, whole on rank 0.

    Args:
        tensors: As `make_feature_map` and `Kme` take them.
        sums: Of features over each seen distribution, (N, m), for merging with those of other
            sites; none where the form is exact.
        report: What a person wants to know of the fit.
    """

    tensors: Mapping[str, Tensor]
    sums: Sums | None
    report: Mapping[str, Any]


def fit_kme(section: schema.Kme, sets: SampleSets, folder: Path) -> FittedKme:
    """Fit the embedding of a population's seen distributions.

    Args:
        section: The config's section.
        sets: Their samples.
        folder: For what an interrupted fit leaves to the next, shared by the ranks.

    Raises:
        ConfigError: If the form does not go with the kernel or the data, or the kernel not with
            the data.
        Preempted: If the run was asked to stop.

    **Collective.**
    """
    median = stream.median_distance(sets) if wants_median(section.kernel) else 0.0
    kernel = make_kernel(section.kernel, median)
    _check_period(kernel, sets)
    tensors = {"median": torch.tensor(median, dtype=torch.float64)}
    if isinstance(section.form, schema.ExactForm):
        means = _exact(kernel, sets, folder)
    else:
        means = _featured(section, tensors, kernel, sets)
    spread = stream.self_similarity(kernel, sets) - means.squares
    noise = float((spread / torch.tensor(sets.lengths)).mean())
    fit = gram_pca if means.sums is None else feature_pca
    pca = fit(means.products, section.components, noise, section.scaling)
    tensors |= means.tensors
    tensors |= {"origin": pca.origin, "projection": pca.projection.contiguous()}
    tensors["table"] = pca(means.products).float()
    report = {**_report(section, sets, median, pca, noise), **means.report}
    say(_line(report))
    return FittedKme(tensors=tensors, sums=means.sums, report=report)


def _check_period(kernel: Kernel, sets: SampleSets) -> None:
    """Refuse samples that a circle would wrap around onto each other. **Collective.**"""
    if not (isinstance(kernel, HeatKernel) and isinstance(kernel.axis, Circle)):
        return
    widest, period = float(stream.extent(sets).max()), kernel.axis.period
    if widest > period:
        raise ConfigError(
            "samples are spread over more than the kernel's period, which takes its ends for one",
            where="embedding.kernel.period",
            got=f"{period:g} for samples spread over {widest:.3g}",
            fix=f"set embedding.kernel.period={math.ceil(1.25 * widest)}",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Means:
    """The mean embeddings of N distributions.

    Args:
        products: (N, N) the Gram matrix, or (N, m) weighed mean features.
        squares: (N,) |mu|^2.
        tensors: The feature map's.
        sums: The features' sums, where there are features.
        report: What is to be said of the form.
    """

    products: Tensor
    squares: Tensor
    tensors: Mapping[str, Tensor]
    sums: Sums | None
    report: Mapping[str, Any]


def _exact(kernel: Kernel, sets: SampleSets, folder: Path) -> _Means:
    gram = gram_matrix(sets, kernel, folder)
    tensors: dict[str, Tensor] = {}
    if collectives.world().is_main:  # which writes them; the other ranks need none of them
        anchors = [sets.take(item).float().cpu() for item in range(len(sets))]
        tensors = {"map.anchors": torch.cat(anchors), "map.lengths": torch.tensor(sets.lengths)}
    return _Means(products=gram, squares=gram.diagonal(), tensors=tensors, sums=None, report={})


def _featured(
    section: schema.Kme, tensors: Mapping[str, Tensor], kernel: Kernel, sets: SampleSets
) -> _Means:
    own = fit_map(section.form, kernel, sets)
    feature_map = make_feature_map(section, {**tensors, **own})
    # sums come to the CPU, where eigenvectors have the same bits; samples may lie on a GPU
    at_samples = copy.deepcopy(feature_map).to(sets.device)
    sums = stream.feature_sums(at_samples, sets)
    features = feature_map.weigh(sums.mean)
    error, largest = _error(at_samples, kernel, sets)
    report = {"features": feature_map.size, "gram_error": error, "gram_largest": largest}
    return _Means(
        products=features,
        squares=features.square().sum(1),
        tensors=own,
        sums=sums,
        report=report,
    )


def _error(feature_map: FeatureMap, kernel: Kernel, sets: SampleSets) -> tuple[float, float]:
    """The largest error of the form's Gram matrix on a few distributions, and its largest entry."""
    few = sorted({round(i) for i in np.linspace(0, len(sets) - 1, PROBED)})
    taken = [sets.take(item, PROBE) for item in few]
    lengths = torch.tensor([len(rows) for rows in taken])
    rows = torch.cat(taken)
    features = feature_map.weigh(feature_map.sums(rows, lengths).mean).cpu()
    pairs = torch.outer(lengths, lengths)
    each = lengths.tolist()
    exact = pair_sums(kernel, rows, each, kernel.right(rows), each).cpu() / pairs
    return float((features @ features.T - exact).abs().max()), float(exact.max())


def _report(
    section: schema.Kme, sets: SampleSets, median: float, pca: RkhsPca, noise: float
) -> dict[str, Any]:
    return {
        "kind": "kme",
        "kernel": section.kernel.kind,
        "form": section.form.kind,
        "median_distance": median or None,
        "distributions": len(sets),
        "samples": sum(sets.lengths),
        "components": pca.components,
        "kept": pca.kept,
        "eigenvalues": (pca.eigenvalues / len(sets)).tolist(),
        "noise": noise,
    }


def _line(report: Mapping[str, Any]) -> str:
    form = f"KME: {report['kernel']} kernel, {report['form']} form"
    if "features" in report:
        form += (
            f" of {report['features']} features, Gram error at most {report['gram_error']:.1e} "
            f"beside entries up to {report['gram_largest']:.2g} on a few distributions"
        )
    return (
        f"{form}; {report['components']} components keep {100 * report['kept']:.1f} % of the "
        f"variance between {report['distributions']} distributions"
    )
