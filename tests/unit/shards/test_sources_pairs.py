from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from sno_dist.config.schema import Digits, Split
from sno_dist.errors import DataError
from sno_dist.runtime.rng import generator
from sno_dist.shards.sources.factory import make_source
from sno_dist.shards.sources.pairs import PairSource, choose_pairs, split_glyphs
from sno_dist.shards.sources.source import ROLES

SPLIT = Split(unseen=0.3, seed=0)


@pytest.fixture(scope="module")
def source() -> PairSource:
    made = make_source(Digits(), SPLIT)
    assert isinstance(made, PairSource)
    return made


@pytest.fixture(scope="module")
def labels() -> dict[bytes, int]:
    digits = load_digits()
    pixels = np.rint(digits.images * 255 / 16).astype(np.uint8)
    return {glyph.tobytes(): int(label) for glyph, label in zip(pixels, digits.target, strict=True)}


def halves(pairs: np.ndarray) -> tuple[set[bytes], set[bytes]]:
    left, right = pairs[:, 0, :, :8], pairs[:, 0, :, 8:]
    return {g.tobytes() for g in left}, {g.tobytes() for g in right}


def test_population(source: PairSource) -> None:
    distributions = source.distributions()
    assert [d.name for d in distributions] == [f"{i:02d}" for i in range(100)]
    assert [d.split for d in distributions].count("unseen") == 30
    assert (source.domain, source.shape, source.roles) == ("image", (1, 8, 16), ROLES)


def test_a_pair_is_two_glyphs_of_its_two_digits(
    source: PairSource, labels: dict[bytes, int]
) -> None:
    for name in ("07", "70", "33"):
        for role in ROLES:
            pairs = source.draw(name, role)
            assert pairs.dtype == np.uint8
            assert pairs.shape == (source.counts[role], 1, 8, 16)
            left, right = halves(pairs)
            assert {labels[glyph] for glyph in left} == {int(name[0])}
            assert {labels[glyph] for glyph in right} == {int(name[1])}
    assert source.draw("07", "model").max() == 255


def test_glyphs_drawn_for_different_ends_are_different(source: PairSource) -> None:
    ends: dict[str, set[bytes]] = {
        "seen": set(),
        "unseen": set(),
        "judge": set(),
        "reference": set(),
    }
    for distribution in source.distributions():
        for role in ROLES:
            end = str(distribution.split) if role == "model" else role
            left, right = halves(source.draw(distribution.name, role))
            ends[end] |= left | right
    for a, b in combinations(ends, 2):
        assert not ends[a] & ends[b], (a, b)
    # Pairs are enough to use every glyph, so the sizes are those of the pools.
    audit = source.audit()
    assert {end: len(glyphs) for end, glyphs in ends.items()} == audit["glyphs"]
    assert sum(audit["glyphs"].values()) == 1797
    assert audit["shared_total"] == 0
    assert len(audit["shared"]) == 6


def test_every_digit_has_the_same_shares(source: PairSource) -> None:
    counts = np.bincount(load_digits().target)
    for pool, share in {"seen": 0.5, "unseen": 0.125, "judge": 0.25, "reference": 0.125}.items():
        sizes = [len(glyphs) for glyphs in source.glyphs[pool]]
        assert np.abs(sizes - share * counts).max() <= 1


def test_audit_counts_a_glyph_that_is_in_two_pools(source: PairSource) -> None:
    glyphs = {**source.glyphs, "judge": [source.glyphs["seen"][0][:3], *source.glyphs["judge"][1:]]}
    leaky = PairSource(
        shape=source.shape, glyphs=glyphs, counts=source.counts, splits=source.splits
    )
    assert leaky.audit()["shared"]["seen+judge"] == 3
    assert leaky.audit()["shared_total"] == 3


def test_draws_repeat_and_pools_do_not_hang_on_the_split(source: PairSource) -> None:
    again = make_source(Digits(), SPLIT)
    other = make_source(Digits(), Split(unseen=0.3, seed=1))
    before = {d.name: d.split for d in source.distributions()}
    after = {d.name: d.split for d in other.distributions()}
    assert before != after
    moved = next(name for name in before if before[name] != after[name])
    kept = next(name for name in before if before[name] == after[name])
    for role in ROLES:
        assert (source.draw(kept, role) == again.draw(kept, role)).all()
        assert (source.draw(kept, role) == other.draw(kept, role)).all()
        same = (source.draw(moved, role) == other.draw(moved, role)).all()
        assert same == (role != "model")
    assert not (source.draw("12", "judge")[:200] == source.draw("21", "judge")[:200]).all()


def test_pairs_are_distinct_while_there_are_enough() -> None:
    i, j = choose_pairs(22, 20, 440, generator(0, "test"))
    assert len(set(zip(i.tolist(), j.tolist(), strict=True))) == 440
    i, j = choose_pairs(3, 2, 600, generator(0, "test"))
    _, counts = np.unique(i * 2 + j, return_counts=True)
    # Chi-square, 5 degrees of freedom: above 33 with probability 4e-6, were the seed not fixed.
    assert len(counts) == 6
    assert ((counts - 100) ** 2 / 100).sum() < 33


def test_a_digit_with_too_few_glyphs_is_an_error() -> None:
    images = np.zeros((11, 28, 28), np.uint8)
    with pytest.raises(DataError, match=r"too few glyphs of digit 1 in tiny \| got: 1 \|"):
        split_glyphs(images, np.array([0, *range(10)]), {"seen": 0.5, "judge": 0.5}, "tiny")
