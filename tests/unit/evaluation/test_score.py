from __future__ import annotations

import numpy as np
import pytest

from sno_dist.embedding.kernels import Gaussian
from sno_dist.errors import DataError
from sno_dist.evaluation import mmd
from sno_dist.evaluation.permutation import permutation_p_value
from sno_dist.evaluation.reference import Comparison, Reference, reference
from sno_dist.evaluation.score import Contexts, DistributionScores, score_distribution
from sno_dist.runtime.rng import generator
from sno_dist.sampling.plan import Method

RNG = np.random.default_rng(0)
REAL = RNG.normal(size=(60, 3))
UNIT = Gaussian(1.0)
COMPARISON = Comparison(bandwidths=(1.0, 0.3), permutations=19, seed=4)


def measured(real: np.ndarray = REAL, size: int = 40) -> Reference:
    return reference(
        real,
        name="a",
        split="unseen",
        size=size,
        classifier=None,
        label=None,
        comparison=COMPARISON,
    )


def score(
    generated: np.ndarray, contexts: Contexts | None = None, method: Method = "operator"
) -> DistributionScores:
    return score_distribution(generated, measured(), contexts, classifier=None, k=5, method=method)


def test_real_samples_score_as_real_ones() -> None:
    found = score(REAL.copy())
    assert found.diversity == pytest.approx(1, abs=1e-12)
    assert (found.recall, found.precision) == (1, 1)
    assert found.mmd == pytest.approx(mmd.unbiased(REAL, REAL.copy(), UNIT), abs=1e-14)
    assert (found.correct, found.accuracy, found.copying) == (None, None, None)


def test_the_discrepancy_is_that_of_its_own_module() -> None:
    generated = RNG.normal(size=(40, 3)) + 0.5
    found = score(generated)
    for width, value in found.mmds.items():
        expected = mmd.unbiased(generated, REAL, Gaussian(width))
        assert value == pytest.approx(expected, abs=1e-14)
    assert list(found.mmds) == [1.0, 0.3]
    assert found.mmd == found.mmds[1.0]


def test_the_test_against_chance_has_random_numbers_of_its_own() -> None:
    generated = RNG.normal(size=(40, 3)) + 0.2

    def expected(label: str, x: np.ndarray, y: np.ndarray) -> float:
        source = generator(4, "permutation", "unseen", "a", label)
        return permutation_p_value(x, y, UNIT, 19, source)

    assert score(generated).p_value == expected("k5", generated, REAL)
    assert score(generated, method="jitter").p_value == expected("jitter-k5", generated, REAL)
    assert measured().figures.p_value == expected("real", *mmd.part(REAL, 40))


def test_generated_contexts_are_copies() -> None:
    sets = [RNG.normal(size=(5, 3)) for _ in range(4)]
    found = score(np.concatenate(sets), Contexts(sets=sets, groups=np.repeat(range(4), 5)))
    assert found.copying == 1
    assert found.copying_chance == pytest.approx(5 / 65)


def test_samples_that_differ_between_context_sets_alone_have_no_diversity_within() -> None:
    sets = [RNG.normal(size=(5, 3)) for _ in range(4)]
    alike = np.repeat(RNG.normal(size=(4, 3)), 5, axis=0)
    found = score(alike, Contexts(sets=sets, groups=np.repeat(range(4), 5)))
    assert found.diversity_within == 0
    assert found.diversity > 0.3
    assert score(alike).diversity_within is None


def test_the_order_of_samples_changes_nothing() -> None:
    generated = RNG.normal(size=(40, 3)) * 1.2
    one, other = score(generated), score(RNG.permutation(generated))
    for name in ("diversity", "recall", "precision", "mmd"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-12)


def test_floors_and_ceilings_are_of_two_sets() -> None:
    figures = measured().figures
    assert figures.n == 60
    assert figures.mmd_floor == mmd.floor(REAL, UNIT, 40)
    assert figures.mmd_floors[0.3] == mmd.floor(REAL, Gaussian(0.3), 40)
    assert [part.count for part in figures.parts] == [30, 30]
    assert 0.5 < figures.recall_ceiling <= 1


def test_bad_samples_are_told_with_their_distribution() -> None:
    with pytest.raises(DataError, match=r"generated samples of a hold.*1 of 40 samples with NaN"):
        score(np.where(np.arange(40)[:, None] == 7, np.nan, RNG.normal(size=(40, 3))))
    with pytest.raises(DataError, match="too few generated samples of a"):
        score(REAL[:3])
    with pytest.raises(DataError, match="too few real samples of a"):
        measured(REAL[:7])
