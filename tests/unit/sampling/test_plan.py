"""What is sampled, and from which contexts: pure, disjoint, complete."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sno_dist.config.schema import Finetuned, Individual, Sampling
from sno_dist.errors import DataError
from sno_dist.sampling.plan import context_of, groups_of, label, plan_units
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


def test_baselines_follow_the_operator_s_units_and_cover_the_same_distributions(
    manifest: Manifest,
) -> None:
    sampling = Sampling(
        contexts=(1, 10),
        samples=100,
        batch=300,
        baselines=("jitter", "pooled", "individual"),
        individual=Individual(group=32),
    )
    units = plan_units(sampling, manifest)
    methods = [unit.method for unit in units]
    assert list(dict.fromkeys(methods)) == ["operator", "jitter", "pooled", "individual"]
    own = [unit for unit in units if unit.method == "operator"]
    assert own == plan_units(Sampling(contexts=(1, 10), samples=100, batch=300), manifest)
    found = [replace(unit, method="operator") for unit in units if unit.method == "jitter"]
    assert found == own
    whole = [replace(unit, method="operator") for unit in units if unit.method == "pooled"]
    assert whole == [unit for unit in own if unit.k is None]
    sizes = [(unit.k, len(unit.entries)) for unit in units if unit.method == "individual"]
    assert sizes == [(None, 32), (None, 32), (None, 6), (None, 30)]


def test_fine_tuning_is_for_unseen_sets_of_its_own_sizes(manifest: Manifest) -> None:
    sampling = Sampling(
        contexts=(10,), baselines=("finetuned",), finetuned=Finetuned(contexts=(1,), group=20)
    )
    for unseen in (True, False):
        units = plan_units(sampling, manifest, unseen=unseen)
        found = [(u.split, u.k, len(u.entries)) for u in units if u.method == "finetuned"]
        assert found == [("unseen", k, size) for k in (1, None) for size in (20, 10)]
    few = sampling.model_copy(update={"finetuned": Finetuned(contexts=(10**6,))})
    with pytest.raises(DataError, match=r"drop that K from sampling\.finetuned\.contexts"):
        plan_units(few, manifest)


def test_a_limit_takes_distributions_from_end_to_end(manifest: Manifest) -> None:
    units = plan_units(Sampling(contexts=(), samples=100, batch=300, distributions=4), manifest)
    for split in ("seen", "unseen"):
        names = [e.name for unit in units if unit.split == split for e in unit.entries]
        everything = [e.name for e in manifest.split(split)]
        assert len(set(names)) == 4
        assert (names[0], names[-1]) == (everything[0], everything[-1])
    more = Sampling(contexts=(), distributions=10**6)
    assert plan_units(more, manifest) == plan_units(Sampling(contexts=()), manifest)


def test_a_baseline_s_label_holds_its_name() -> None:
    assert [label(None), label(10)] == ["all", "k10"]
    assert [label(None, "individual"), label(10, "nearest")] == ["individual-all", "nearest-k10"]


def test_the_nearest_other_needs_another(manifest: Manifest) -> None:
    one = replace(manifest, entries=[manifest.split("seen")[0], *manifest.split("unseen")])
    with pytest.raises(DataError, match=r"no other that could be the nearest.*1 seen"):
        plan_units(Sampling(contexts=(), baselines=("nearest",)), one)
    assert plan_units(Sampling(contexts=(), baselines=("pooled",)), one)


def test_a_model_that_cannot_embed_samples_seen_distributions_alone(manifest: Manifest) -> None:
    units = plan_units(Sampling(baselines=("resample",)), manifest, unseen=False)
    assert {(unit.split, unit.method) for unit in units} == {
        ("seen", "operator"),
        ("seen", "resample"),
    }


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
