"""The lattice family: its counts, its rank, and what kernel mean embeddings tell of its laws."""

from __future__ import annotations

from functools import cache
from itertools import product

import numpy as np
import pytest
import torch

from sno_dist.embedding.fourier import FourierQuadrature
from sno_dist.embedding.pca import feature_pca
from sno_dist.shards.sources.gaussian_mixture import (
    SEEN_RULES,
    UNSEEN_RULES,
    cells,
    laws,
    lower_corners,
)

SEEN = tuple(name for rule in SEEN_RULES for name in laws(*rule))
UNSEEN = tuple(name for rule in UNSEEN_RULES for name in laws(*rule))


def indicators(names: tuple[str, ...]) -> np.ndarray:
    """(N, 36), 1 for a cell that a law has."""
    rows = np.zeros((len(names), 36))
    for row, name in zip(rows, names, strict=True):
        row[[6 * r + c for r, c in cells(name)]] = 1
    return rows


@cache
def quadrature(bandwidth: float) -> FourierQuadrature:
    numbers = torch.tensor([bandwidth, 1e-10], dtype=torch.float64)
    return FourierQuadrature(numbers[0], torch.full((2,), 6.0).double(), numbers[1])


@cache
def cell_features(bandwidth: float) -> torch.Tensor:
    """(36, m) mean features of the uniform law on each cell, from its characteristic function."""
    feature_map = quadrature(bandwidth)

    def axis(index: int, step: float) -> torch.Tensor:
        waves = step * torch.arange(1, feature_map.order + 1, dtype=torch.float64)
        low, high = waves * (index - 3), waves * (index - 2)
        cosines, sines = (high.sin() - low.sin()) / waves, (low.cos() - high.cos()) / waves
        return torch.cat([torch.ones(1, dtype=torch.float64), cosines, sines])

    x, y = ([axis(i, float(step)) for i in range(6)] for step in feature_map.steps)
    found = [torch.outer(x[c], y[r]).flatten() for r, c in product(range(6), repeat=2)]
    return feature_map.weigh(torch.stack(found))


def exact_features(names: tuple[str, ...], bandwidth: float) -> torch.Tensor:
    return torch.from_numpy(indicators(names)) @ cell_features(bandwidth) / 4


def test_counts_and_empty_intersections() -> None:
    families = [
        {frozenset(cells(name)) for name in laws(*rule)}
        for rule in (*SEEN_RULES, *UNSEEN_RULES, ("column", "column"))
    ]
    assert [len(family) for family in families] == [810, 810, 324, 2025]
    assert len(set().union(*families)) == 810 + 810 + 324 + 2025
    assert all(len(law) == 4 for family in families for law in family)


def test_the_centred_rank_is_34_with_and_without_unseen_laws() -> None:
    seen = indicators(SEEN)
    centred = seen - seen.mean(0)
    assert np.linalg.matrix_rank(centred) == 34
    everything = np.concatenate([centred, indicators(UNSEEN) - seen.mean(0)])
    assert np.linalg.matrix_rank(everything) == 34
    eigenvalues = np.linalg.eigvalsh(centred.T @ centred / len(centred))[::-1]
    expected = [0.15556] * 10 + [0.13889] * 4 + [0.07222] * 20 + [0] * 2
    assert eigenvalues == pytest.approx(expected, abs=5e-6)


def test_every_unseen_law_is_an_affine_combination_of_seen_ones() -> None:
    # one more row of ones: the weights add up to 1
    seen, unseen = (
        np.concatenate([indicators(names), np.ones((len(names), 1))], 1).T
        for names in (SEEN, UNSEEN)
    )
    weights = np.linalg.lstsq(seen, unseen, rcond=None)[0]
    assert np.abs(seen @ weights - unseen).max() < 1e-10


def test_printed_products_by_quadrature_of_characteristic_functions() -> None:
    features = exact_features(("00-02-14-54", "00-02-13-15"), 1.0)
    (own, cross), (_, other) = (features @ features.T).tolist()
    assert own == pytest.approx(0.2457034023, abs=1e-9)
    assert own + other - 2 * cross == pytest.approx(0.0933978733, abs=1e-9)


def test_cells_are_decoded_linearly_from_34_scores_of_samples() -> None:
    seen = exact_features(SEEN, 0.5)
    pca = feature_pca(seen, 34, 0.0, "isometric")
    ones = torch.ones(len(seen), 1, dtype=torch.float64)
    decoder = torch.linalg.lstsq(
        torch.cat([pca(seen), ones], 1), torch.from_numpy(indicators(SEEN))
    ).solution
    source, chosen = np.random.default_rng(0), UNSEEN[::6]
    right = 0
    for name in chosen:
        corners = lower_corners(name)[source.integers(4, size=2000)]
        samples = torch.from_numpy(corners + source.uniform(size=(2000, 2)))
        mean = quadrature(0.5).weigh(quadrature(0.5)(samples).mean(0, keepdim=True))
        told = torch.cat([pca(mean), ones[:1]], 1) @ decoder
        right += set(told[0].topk(4).indices.tolist()) == {6 * r + c for r, c in cells(name)}
    assert right / len(chosen) >= 0.95
