from __future__ import annotations

import math

import numpy as np
import pytest

from sno_dist.errors import DataError
from sno_dist.evaluation import diversity

RNG = np.random.default_rng(0)


def ratio(generated: np.ndarray, real: np.ndarray) -> float:
    return diversity.spread(generated, "generated samples") / diversity.positive_spread(real)


def recall(generated: np.ndarray, real: np.ndarray, k: int = 3) -> float:
    return diversity.coverage(real, generated, diversity.neighbour_radii(generated, k))


def test_spread_is_the_mean_distance_between_distinct_samples() -> None:
    assert diversity.spread(np.array([[0.0, 0], [3, 4], [0, 0]])) == pytest.approx(10 / 3)


def test_spread_within_leaves_out_what_lies_between_groups() -> None:
    samples = np.array([[0.0], [2], [100], [104], [7]])
    groups = np.array([0, 0, 1, 1, 2])
    assert diversity.spread_within(samples, groups) == pytest.approx(3)
    assert diversity.spread_within(samples, np.arange(5)) is None


def test_identical_sets_have_diversity_and_recall_one() -> None:
    x = RNG.normal(size=(70, 6))
    assert ratio(x, x.copy()) == pytest.approx(1, abs=1e-12)
    assert recall(x, x.copy()) == 1


def test_halving_the_scale_halves_the_diversity() -> None:
    x = RNG.normal(size=(50, 3))
    assert ratio(x / 2 + 7, x) == pytest.approx(0.5)


def test_collapsed_samples_have_neither_diversity_nor_recall() -> None:
    x = RNG.normal(size=(50, 3))
    collapsed = np.repeat(x[:1], 20, axis=0)
    assert ratio(collapsed, x) == 0
    assert recall(collapsed, x) <= 0.02


def test_recall_finds_the_missing_mode_and_precision_does_not() -> None:
    modes = RNG.normal(size=(200, 2)) * 0.1 + np.repeat([[0, 0], [10, 0]], 100, axis=0)
    one = RNG.normal(size=(100, 2)) * 0.1
    assert recall(one, modes) == pytest.approx(0.5, abs=0.06)
    precision = diversity.coverage(one, modes, diversity.neighbour_radii(modes, 3))
    assert precision > 0.85


def test_the_radius_is_the_distance_to_the_kth_other_sample() -> None:
    line = np.array([[0.0], [1], [3], [7]])
    np.testing.assert_allclose(diversity.neighbour_radii(line, 2), [9, 4, 9, 36])


def test_blocks_and_the_order_of_samples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = RNG.normal(size=(90, 4)), RNG.normal(size=(80, 4)) * 1.3
    whole = ratio(x, y), recall(x, y), diversity.neighbour_radii(x, 3)
    monkeypatch.setattr(diversity, "BLOCK", 7)
    assert ratio(RNG.permutation(x), RNG.permutation(y)) == pytest.approx(whole[0])
    assert recall(RNG.permutation(x), RNG.permutation(y)) == whole[1]
    np.testing.assert_allclose(diversity.neighbour_radii(x, 3), whole[2])


def test_samples_that_are_their_contexts_are_copies() -> None:
    contexts = [RNG.normal(size=(5, 3)), RNG.normal(size=(5, 3))]
    real = RNG.normal(size=(100, 3))
    groups = np.repeat([0, 1], 5)
    assert diversity.copying_rate(np.concatenate(contexts), contexts, groups, real) == 1
    # The other group's context samples are not one's own.
    swapped = np.concatenate(contexts[::-1])
    assert diversity.copying_rate(swapped, contexts, groups, real) < 0.5


def test_samples_that_are_real_ones_are_no_copies() -> None:
    real = RNG.normal(size=(30, 3))
    groups = np.zeros(30, int)
    assert diversity.copying_rate(real, [RNG.normal(size=(9, 3))], groups, real) == 0


def test_without_copying_the_rate_is_that_of_chance() -> None:
    samples, context = RNG.normal(size=(4000, 2)), RNG.normal(size=(300, 2))
    real = RNG.normal(size=(600, 2))
    rate = diversity.copying_rate(samples, [context], np.zeros(4000, int), real)
    assert rate == pytest.approx(diversity.copying_chance(300, 600), abs=0.04)


@pytest.mark.parametrize("jitter", [0.0, 0.05])
def test_samples_that_tie_are_copies_by_chance_alone(jitter: float) -> None:
    # counts: most samples have many neighbours that are equally near
    samples, context, real = (RNG.poisson(3, size=(n, 1)).astype(float) for n in (4000, 100, 200))
    samples = samples + jitter * RNG.normal(size=samples.shape)
    rate = diversity.copying_rate(samples, [context], np.zeros(4000, int), real)
    assert rate == pytest.approx(diversity.copying_chance(100, 200), abs=0.04)


@pytest.mark.parametrize("dims", [2, 3, 6])
def test_ties_on_a_grid_are_those_of_the_grid(dims: int) -> None:
    # tenths, whose squared distances are exact in none of the two expansions
    counts = [RNG.integers(0, 5, size=(n, dims)) for n in (400, 60, 90)]
    samples, context, real = (own / 10 for own in counts)
    gaps = [((counts[0][:, None] - own) ** 2).sum(2) for own in counts[1:]]
    least = np.minimum(gaps[0].min(1), gaps[1].min(1))[:, None]
    near, far = ((gap == least).sum(1) for gap in gaps)
    rate = diversity.copying_rate(samples, [context], np.zeros(400, int), real)
    assert rate == pytest.approx((near / (near + far)).mean(), abs=1e-12)
    radii = diversity.neighbour_radii(context, 1)
    exact = np.sort(((counts[1][:, None] - counts[1]) ** 2).sum(2), 1)[:, 1]
    covered = (gaps[0] <= exact).any(1).mean()
    assert diversity.coverage(samples, context, radii) == pytest.approx(covered, abs=1e-12)


def test_bytes_and_unit_floats_are_the_same_images() -> None:
    images = RNG.integers(0, 256, size=(12, 1, 4, 4)).astype(np.uint8)
    assert ratio(images / 255, images) == pytest.approx(1, abs=1e-12)


def test_what_cannot_be_measured_is_told() -> None:
    x = RNG.normal(size=(5, 2))
    with pytest.raises(DataError, match="diversity is undefined"):
        ratio(x, np.ones((5, 2)))
    with pytest.raises(DataError, match="not finite"):
        ratio(np.array([[math.inf, 0], [0, 0]]), x)
    with pytest.raises(DataError, match=r"3 neighbours.*at least 4"):
        diversity.neighbour_radii(x[:3], 3)
