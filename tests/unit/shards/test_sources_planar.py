from __future__ import annotations

import numpy as np
import pytest

from sno_dist.config.schema import Planar, Split
from sno_dist.shards.sources.factory import make_source
from sno_dist.shards.sources.planar import CURVES, FAMILIES, RING, PlanarSource


def make(seed: int = 0, **settings: object) -> PlanarSource:
    source = make_source(Planar(kind="planar", **settings), Split(seed=seed))  # pyright: ignore
    assert isinstance(source, PlanarSource)
    return source


@pytest.mark.parametrize("family", CURVES)
def test_points_lie_around_their_curve(family: str) -> None:
    path, noise = CURVES[family]
    nodes = path(np.linspace(0, 1, 4000, endpoint=False))
    points = FAMILIES[family](2000, np.random.default_rng(0))
    away = np.linalg.norm(points[:, None] - nodes, axis=2).min(1)
    # across a curve the noise is a half normal, of mean (2 / pi)^(1/2) deviations
    assert away.mean() == pytest.approx(noise * (2 / np.pi) ** 0.5, rel=0.1)
    assert away.max() < 5 * noise


def test_squares_and_gaussians_are_where_they_are_said_to_be() -> None:
    board = FAMILIES["checkerboard"](4000, np.random.default_rng(0))
    cells = np.floor(2 * (board + 1)).astype(int)
    assert ((cells.sum(1) % 2 == 0) & (cells >= 0).all(1) & (cells < 4).all(1)).all()
    assert np.unique(cells, axis=0, return_counts=True)[1].min() > 4000 / 8 - 110
    centres, deviation = RING
    ring = FAMILIES["ring"](4000, np.random.default_rng(0))
    gaps = ring[:, None] - centres
    nearest = gaps[np.arange(4000), np.linalg.norm(gaps, axis=2).argmin(1)]
    assert nearest.std(0) == pytest.approx([deviation] * 2, rel=0.05)


def test_variants_are_their_family_turned_and_stretched() -> None:
    source = make(variants=3, model=500)
    names = [distribution.name for distribution in source.distributions()]
    assert len(names) == 7 * 3
    for name in names:
        scales = np.linalg.svd(source.frame(name), compute_uv=False)
        assert np.exp(-0.3) <= scales.min() <= scales.max() <= np.exp(0.3)
    plain = source.draw("moons-001", "model") @ np.linalg.inv(source.frame("moons-001"))
    other = source.draw("moons-002", "model") @ np.linalg.inv(source.frame("moons-002"))
    assert np.abs(plain.mean(0) - other.mean(0)).max() < 0.15
    assert source.draw("moons-001", "model").dtype == np.float32


def test_seeds_and_roles_have_samples_of_their_own() -> None:
    source, other = make(variants=2, model=50, reference=50), make(1, variants=2, model=50)
    model = source.draw("ring-001", "model")
    assert (make(variants=2, model=50).draw("ring-001", "model") == model).all()
    assert not np.isin(model, source.draw("ring-001", "reference")).any()
    assert not np.isin(model, other.draw("ring-001", "model")).any()
    assert source.audit() == {"laws": {"seen": 10, "unseen": 4}}
