"""What is sampled, from which contexts, with which guidance: pure, disjoint, complete."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sno_dist.config.schema import Sampling
from sno_dist.errors import DataError
from sno_dist.sampling.guidance import crossing
from sno_dist.sampling.plan import context_of, groups_of, plan_units
from sno_dist.shards.build import build_shards
from sno_dist.shards.manifest import Manifest
from tests.unit.shards.small import small_config


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root: Path = tmp_path_factory.mktemp("population")
    return build_shards(small_config(root))


def test_units_hold_every_distribution_once_for_each_k(manifest: Manifest) -> None:
    units = plan_units(Sampling(contexts=(1, 10), samples=100, batch=300), manifest)
    found = [(unit.split, unit.k, entry.name) for unit in units for entry in unit.entries]
    assert len(found) == len(set(found)) == 70 + 3 * 30
    assert {(split, k) for split, k, _ in found} == {
        ("seen", None),
        ("unseen", 1),
        ("unseen", 10),
        ("unseen", None),
    }
    assert max(len(unit.entries) for unit in units) == 3


def test_a_model_that_cannot_embed_samples_seen_distributions_alone(manifest: Manifest) -> None:
    units = plan_units(Sampling(), manifest, unseen=False)
    assert {unit.split for unit in units} == {"seen"}


def test_contexts_are_distinct_samples_and_the_same_at_every_call(manifest: Manifest) -> None:
    entry = manifest.split("unseen")[0]
    first = context_of(0, entry, 10, 3)
    assert len(set(first.tolist())) == 10
    np.testing.assert_array_equal(first, context_of(0, entry, 10, 3))
    assert first.tolist() != context_of(0, entry, 10, 4).tolist()
    np.testing.assert_array_equal(context_of(0, entry, None, 0), np.arange(70))


def test_samples_of_one_context_set_are_neighbours() -> None:
    groups = groups_of(Sampling(samples=25, per_context=10), 5)
    assert np.bincount(groups).tolist() == [10, 10, 5]
    assert set(groups_of(Sampling(samples=25), None).tolist()) == {0}


def test_a_context_larger_than_a_distribution(manifest: Manifest) -> None:
    with pytest.raises(DataError, match=r"larger than the distribution.*K = 100.*at most 70"):
        plan_units(Sampling(contexts=(1, 100)), manifest)


@pytest.mark.parametrize(
    ("diversity", "weight"),
    [
        ({1.0: 1.2, 1.5: 1.1, 2.0: 0.9}, 1.75),
        ({2.0: 0.9, 1.0: 1.2, 1.5: 1.1}, 1.75),
        ({1.0: 0.9, 2.0: 0.7}, 1.0),
        ({1.0: 1.6, 2.0: 1.1}, 2.0),
        ({1.0: 1.0, 2.0: 0.8}, 1.0),
    ],
)
def test_guidance_is_where_diversity_falls_through_one(
    diversity: dict[float, float], weight: float
) -> None:
    assert crossing(diversity) == pytest.approx(weight)
