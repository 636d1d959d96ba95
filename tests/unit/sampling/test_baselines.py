"""Baselines that train nothing: whose samples they are, and how wide the kernel is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sno_dist.diffusion.maps.transform import Identity
from sno_dist.sampling.baselines import Baselines, kernel_widths
from sno_dist.sampling.draw import Drawer
from sno_dist.sampling.plan import Method, Unit, context_of, groups_of
from sno_dist.shards.build import build_shards
from sno_dist.shards.manifest import Entry, Manifest
from sno_dist.shards.reader import Reader
from tests.unit.sampling.gaussians import gaussians_config, untrained
from tests.unit.shards.small import small_config

SEED = 3
NEAREST = {"a": "b", "b": "a", "c": "d", "d": "c"}
"""Of the means of the laws, where all four are seen."""


class Population:
    """Three seen Gaussians, one unseen, and everything that draws of them."""

    def __init__(self, root: Path) -> None:
        self.config = gaussians_config(root, "sampling.samples=200", "sampling.per_context=50")
        self.manifest: Manifest = build_shards(self.config)
        self.reader = Reader(self.manifest)
        operator = untrained(self.config, self.manifest)
        self.drawer = Drawer(operator, self.reader, self.config.sampling, SEED)
        # the others' are computed when they are asked for
        known = {e.name: self.drawer.embed(e).numpy() for e in self.manifest.entries[:1]}
        self.draw = Baselines(
            self.reader,
            self.config.sampling,
            SEED,
            self.drawer.embed,
            known,
            operator.transform,
        )
        self.unseen = self.manifest.split("unseen")[0]
        self.seen = self.manifest.split("seen")

    def drawn(self, method: Method, entry: Entry, k: int | None = None) -> NDArray[np.generic]:
        unit = Unit(split=entry.split, k=k, entries=[entry], method=method)
        return self.draw(unit)[0]

    def owners(self, samples: NDArray[np.generic]) -> list[str]:
        """For each sample the distribution in which it is a real one."""
        names = {
            row.tobytes(): entry.name
            for entry in self.manifest.entries
            for row in self.reader.all(entry, "model")
        }
        return [names[row.tobytes()] for row in samples]


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Population:
    return Population(tmp_path_factory.mktemp("population"))


@pytest.mark.parametrize("k", [None, 1, 10])
def test_resampling_gives_samples_of_the_group_s_own_context(
    population: Population, k: int | None
) -> None:
    entry = population.unseen
    samples = population.drawn("resample", entry, k)
    assert (samples.shape, samples.dtype) == ((200, 2), np.float32)
    groups = groups_of(population.config.sampling, k)
    for group in range(groups[-1] + 1):
        index = context_of(SEED, entry, k, group)
        context = {row.tobytes() for row in population.reader.take(entry, "model", index)}
        own = [row.tobytes() for row in samples[groups == group]]
        assert set(own) <= context
        assert len(set(own)) > 0.4 * min(len(context), len(own))


def test_the_nearest_seen_distribution_is_that_of_the_nearest_embedding(
    population: Population,
) -> None:
    names = [entry.name for entry in population.seen]
    for entry in (*population.seen, population.unseen):
        (owner,) = set(population.owners(population.drawn("nearest", entry)))
        assert owner in names
        assert owner != entry.name
        if NEAREST[entry.name] in names:
            assert owner == NEAREST[entry.name]


def test_the_nearest_to_a_few_samples_is_chosen_for_each_context_set(
    population: Population,
) -> None:
    entry = population.unseen
    owners = np.array(population.owners(population.drawn("nearest", entry, 1)))
    groups = groups_of(population.config.sampling, 1)
    table = {e.name: population.drawer.embed(e).numpy() for e in population.seen}
    for group in range(groups[-1] + 1):
        u = population.drawer.embed(entry, 1, group).numpy()
        nearest = min(table, key=lambda name: float(np.square(table[name] - u).sum()))
        assert set(owners[groups == group]) == {nearest}


def test_pooled_samples_are_of_all_seen_distributions_and_no_other(
    population: Population,
) -> None:
    samples = population.drawn("pooled", population.unseen)
    names, counts = np.unique(population.owners(samples), return_counts=True)
    assert set(names) == {entry.name for entry in population.seen}
    assert counts.min() > 200 / len(names) * 0.7


@pytest.mark.parametrize("method", ["nearest", "pooled", "resample", "jitter"])
def test_what_is_drawn_does_not_depend_on_the_unit_s_other_distributions(
    population: Population, method: Method
) -> None:
    alone = [population.drawn(method, entry) for entry in population.seen]
    together = Unit(split="seen", k=None, entries=population.seen, method=method)
    np.testing.assert_array_equal(population.draw(together), np.stack(alone))


def test_jitter_is_a_kernel_around_samples_of_the_context(population: Population) -> None:
    entry = population.unseen
    samples = population.drawn("jitter", entry)
    assert (samples.shape, samples.dtype) == ((200, 2), np.float32)
    context = population.reader.all(entry, "model").astype(np.float64)
    assert len({row.tobytes() for row in samples} & {row.tobytes() for row in context}) == 0
    expected = context.std(0) ** 2 + kernel_widths(context) ** 2
    np.testing.assert_allclose(samples.std(0), np.sqrt(expected), rtol=0.2)


def test_jitter_of_one_context_sample_is_that_sample(population: Population) -> None:
    entry = population.unseen
    np.testing.assert_array_equal(
        population.drawn("jitter", entry, 1)[:50],
        population.reader.take(entry, "model", context_of(SEED, entry, 1, 0)).repeat(50, 0),
    )


def test_the_kernel_is_nearly_that_of_the_normal_rule_where_that_is_right() -> None:
    rows = np.random.default_rng(0).normal(0, (1.0, 10.0), (400, 2))
    scott = rows.std(0) * 400 ** (-1 / 6)
    np.testing.assert_allclose(kernel_widths(rows), scott, rtol=0.35)


def test_the_kernel_keeps_modes_apart() -> None:
    source = np.random.default_rng(0)
    rows = source.normal(0, 0.1, (400, 2)) + 10 * source.integers(0, 2, (400, 2))
    assert kernel_widths(rows).max() < 0.2


def test_the_kernel_of_a_constant_entry_has_no_width() -> None:
    rows = np.random.default_rng(0).normal(0, 1, (20, 3))
    rows[:, 1] = 7.0
    widths = kernel_widths(rows)
    assert widths[1] == 0
    assert widths[0] > 0
    assert kernel_widths(np.ones((5, 1, 2, 2))).tolist() == np.zeros((1, 2, 2)).tolist()
    assert kernel_widths(rows[:1]).tolist() == [0, 0, 0]


def test_jittered_images_are_images(tmp_path: Path) -> None:
    config = small_config(tmp_path, "shards.source.model=12")
    reader = Reader(build_shards(config))
    entry = reader.manifest.split("unseen")[0]

    def never(entry: Entry, k: int | None, group: int) -> None:
        raise AssertionError

    draw = Baselines(
        reader,
        config.sampling,
        SEED,
        never,  # pyright: ignore[reportArgumentType]
        {},
        Identity(reader.manifest.shape),
    )
    drawn = draw(Unit(split="unseen", k=None, entries=[entry], method="jitter"))[0]
    assert (drawn.dtype, drawn.shape) == (np.uint8, (100, 1, 8, 16))
    # nought and 255 are where noise is cut off, not where it wraps around
    context = reader.all(entry, "model")
    always_dark = (context == 0).all(0)
    assert always_dark.any()
    assert (drawn[:, always_dark] == 0).all()
