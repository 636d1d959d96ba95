from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from sno_dist.config.schema import GaussianMixture, Split
from sno_dist.errors import ConfigError
from sno_dist.shards.sources.factory import make_source
from sno_dist.shards.sources.gaussian_mixture import (
    SEEN_RULES,
    UNSEEN_RULES,
    cells,
    laws,
    lower_corners,
    rule,
)

RULES = [*SEEN_RULES, *UNSEEN_RULES, ("column", "column")]


def make(split: Split | None = None, **settings: int):
    return make_source(GaussianMixture(kind="gaussian_mixture", **settings), split or Split())


def test_a_name_tells_its_rule_and_its_halves() -> None:
    for pair in RULES:
        assert {rule(name) for name in laws(*pair)} == {pair}
        for name in laws(*pair):
            assert [column < 3 for _, column in cells(name)] == [True, True, False, False]


def log_density(name: str, x: float, y: float, alpha: float, sigma: float) -> float:
    """Of a law under noise, each axis of a cell a difference of two normal distributions."""

    def axis(at: float, low: float) -> float:
        a, b = (at - alpha * low) / sigma, (at - alpha * (low + 1)) / sigma
        return 0.5 * (math.erf(a / math.sqrt(2)) - math.erf(b / math.sqrt(2))) / alpha

    return math.log(sum(axis(x, low) * axis(y, up) for low, up in lower_corners(name)) / 4)


def test_the_name_the_axes_and_the_centre() -> None:
    name = "00-02-14-54"
    assert name in laws("row", "column")
    assert cells(name) == ((0, 0), (0, 2), (1, 4), (5, 4))
    assert lower_corners(name).tolist() == [[-3, -3], [-1, -3], [1, -2], [1, 2]]
    assert log_density(name, 0, 0, 1, 1) == pytest.approx(-4.9218887326, abs=1e-8)
    assert log_density(name, -1, 1, 0.6, 0.8) == pytest.approx(-5.4142523117, abs=1e-8)


@pytest.mark.parametrize("name", ["", "00-01-02", "00-01-02-06", "00-01-02-3", "00-01-02-0a"])
def test_foreign_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="four cells"):
        cells(name)


def test_samples_fill_their_cells_evenly() -> None:
    source = make(seen=3, unseen=2, model=4000)
    for distribution in source.distributions():
        points = source.draw(distribution.name, "model")
        assert points.dtype == np.float32
        assert points.shape == (4000, 2)
        inside = points[:, None] - lower_corners(distribution.name)
        which = ((inside >= 0) & (inside <= 1)).all(axis=2)
        assert (which.sum(axis=1) == 1).all()
        # 4 cells in 4 quarters each: chi-square with 15 degrees of freedom, above 61 with
        # probability 2e-7, were the seed not fixed.
        within = np.take_along_axis(inside, which.argmax(1)[:, None, None], axis=1)[:, 0]
        quarter = (within > 0.5) @ [1, 2]
        counts = np.bincount(which.argmax(1) * 4 + quarter, minlength=16)
        assert ((counts - 250) ** 2 / 250).sum() < 61


def test_roles_and_draws() -> None:
    source = make(seen=2, unseen=1, model=50, reference=70)
    assert (source.domain, source.shape) == ("vector", (2,))
    assert tuple(source.roles) == ("model", "reference")
    name = source.distributions()[0].name
    model, reference = source.draw(name, "model"), source.draw(name, "reference")
    assert len(reference) == 70
    assert not set(map(tuple, model.tolist())) & set(map(tuple, reference.tolist()))
    assert (make(seen=2, unseen=1, model=50).draw(name, "model") == model).all()


def test_the_whole_family_and_seeded_parts() -> None:
    whole = make()
    assert [d.split for d in whole.distributions()] == ["seen"] * 1620 + ["unseen"] * 324
    assert whole.audit() == {
        "laws": {"seen": 1620, "unseen": 324},
        "rules": {"row-column": 810, "column-row": 810, "row-row": 324},
        "seen_and_unseen": 0,
    }
    part = [d.name for d in make(Split(seed=1), seen=100, unseen=20).distributions()]
    again = [d.name for d in make(Split(seed=1), seen=100, unseen=20).distributions()]
    other = [d.name for d in make(Split(seed=2), seen=100, unseen=20).distributions()]
    assert part == again != other
    assert len(set(part)) == 120
    assert set(part) <= {d.name for d in whole.distributions()}


def test_more_laws_than_there_are() -> None:
    with pytest.raises(ConfigError, match=r"shards\.source\.unseen \| got: 325 \| .*at most 324"):
        make(unseen=325)


def test_beyond_all_laws_they_come_again_with_samples_of_their_own() -> None:
    source = make(seen=4000, unseen=2, model=5, reference=2)
    names = [d.name for d in source.distributions() if d.split == "seen"]
    assert len(set(names)) == 4000
    laws_of = Counter(frozenset(cells(name)) for name in names)
    assert len(laws_of) == 1620
    assert set(laws_of.values()) == {2, 3}
    first = names[0]
    assert cells(first) == cells(f"{first}+2")
    assert not (source.draw(first, "model") == source.draw(f"{first}+2", "model")).any()
