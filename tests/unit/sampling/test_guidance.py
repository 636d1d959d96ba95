"""Guidance weights: where diversity falls through 1, for which K, and that a stop loses none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sno_dist.errors import DataError, Preempted
from sno_dist.evaluation.diversity import spread, spread_within
from sno_dist.runtime import preemption
from sno_dist.sampling.draw import Drawer
from sno_dist.sampling.guidance import Calibration, SeenDiversity, beyond, calibrate, crossing
from sno_dist.sampling.plan import Unit
from sno_dist.sampling.sample import GUIDANCE, sample
from sno_dist.sampling.sample_set import SampleSet
from sno_dist.shards.build import build_shards
from sno_dist.shards.manifest import Entry
from sno_dist.shards.reader import reader_of
from sno_dist.training.checkpoint import Checkpoint
from tests.unit.sampling.gaussians import arrays_config, gaussians_config, untrained

SIZES = {"a": 300, "b": 60, "c": 200, "d": 40}
"""Samples of each distribution, 15 % of them real; a is unseen."""


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


class Falling(SeenDiversity):
    """Two distributions, known at K = 1 and whole, whose diversity falls with the weight."""

    def __init__(self) -> None:
        self.asked: list[tuple[int | None, float]] = []

    def units(self, k: int | None) -> list[Unit]:
        own = [Entry(name=name, split="seen", roles={}) for name in "ab"]
        return [] if k == 10 else [Unit(split="seen", k=k, entries=own)]

    def of(self, unit: Unit, weight: float) -> list[float]:
        self.asked.append((unit.k, weight))
        mean = (1.9 if unit.k == 1 else 1.2) / weight
        return [mean - 0.1, mean + 0.1]


def test_weights_rise_until_the_diversity_of_whole_sets_has_fallen_to_one() -> None:
    seen, kept = Falling(), list[Calibration]()
    found = calibrate(seen, [1, 10, None], (2.0, 1.0, 1.25), {}, lambda f: kept.append({**f}))
    assert found.keys() == {"1", "all"}
    grid = {w: v for w, v in found["all"].items() if w in (1.0, 1.25, 2.0)}
    assert grid == pytest.approx({1.0: 1.2, 1.25: 0.96})
    assert seen.asked[:2] == [(None, 1.0), (None, 1.25)]
    assert kept[-1] == found


def test_a_smaller_k_begins_where_the_larger_ended() -> None:
    seen = Falling()
    found = calibrate(seen, [1, None], (1.0, 1.25, 2.0), {}, lambda _: None)
    asked = [weight for k, weight in seen.asked if k == 1]
    assert asked[:2] == [crossing(found["all"]), 1.25]
    assert found["1"][asked[0]] > 1


def test_a_k_that_begins_below_one_goes_down_the_grid() -> None:
    class Turned(Falling):
        def of(self, unit: Unit, weight: float) -> list[float]:
            self.asked.append((unit.k, weight))
            mean = (1.2 if unit.k == 1 else 1.9) / weight
            return [mean - 0.1, mean + 0.1]

    seen = Turned()
    found = calibrate(seen, [1, None], (1.0, 1.5, 3.0), {}, lambda _: None)
    asked = [weight for k, weight in seen.asked if k == 1]
    assert asked[:3] == [crossing(found["all"]), 1.5, 1.0]
    assert crossing(found["1"]) == pytest.approx(1.2, abs=0.01)


def test_a_crossing_is_tried_until_diversity_is_near_one_there() -> None:
    seen = Falling()
    found = calibrate(seen, [1, None], (1.0, 1.25, 2.0), {}, lambda _: None)
    for k, root in (("1", 1.9), ("all", 1.2)):
        assert crossing(found[k]) == pytest.approx(root, abs=0.005)
        assert min(abs(value - 1) for value in found[k].values()) < 0.01
        grid = {w: v for w, v in found[k].items() if w in (1.0, 1.25, 2.0)}
        assert abs(crossing(grid) - root) > 0.005


def test_a_weight_that_comes_near_enough_to_one_ends_the_search() -> None:
    seen = Falling()
    found = calibrate(seen, [None], (1.0, 1.19, 1.5), {}, lambda _: None)
    assert seen.asked == [(None, 1.0), (None, 1.19)]
    assert crossing(found["all"]) == 1.19


def test_a_k_whose_diversity_the_grid_does_not_bring_to_one_is_named() -> None:
    assert beyond(calibrate(Falling(), [1, None], (1.0, 1.25), {}, lambda _: None)) == ["1"]
    assert beyond(calibrate(Falling(), [1, None], (1.0, 1.25, 2.0), {}, lambda _: None)) == []


def test_what_an_earlier_attempt_found_is_not_measured_again() -> None:
    whole = calibrate(Falling(), [1, None], (1.0, 1.25, 2.0), {}, lambda _: None)
    for tried in range(1, 5):
        known = {k: dict(list(own.items())[:tried]) for k, own in whole.items()}
        seen = Falling()
        assert calibrate(seen, [1, None], (1.0, 1.25, 2.0), known, lambda _: None) == whole
        assert len(seen.asked) == sum(max(len(own) - tried, 0) for own in whole.values())


def go(root: Path, *overrides: str, rows: dict[str, np.ndarray] | None = None) -> SampleSet:
    source = np.random.default_rng(0)
    rows = rows or {name: source.normal(0, 1, (count, 2)) for name, count in SIZES.items()}
    asked = ("sampling.guidance=[1.0, 1.5, 2.0]", "sampling.contexts=[1, 100, 200]")
    config = arrays_config(root, rows, *asked, *overrides)
    manifest = build_shards(config)
    untrained(config, manifest).save_pretrained(root / "operator")
    checkpoint = Checkpoint(path=root / "operator", step=0, digest="untrained")
    return sample(config, manifest, checkpoint)


@pytest.mark.parametrize("k", [10, None])
def test_diversity_is_within_each_context_set_and_over_that_of_held_out_samples(
    tmp_path: Path, k: int | None
) -> None:
    config = gaussians_config(tmp_path)
    manifest = build_shards(config)
    reader, operator = reader_of(config, manifest), untrained(config, manifest)
    unit = SeenDiversity(operator, reader, None, config).units(k)[0]
    drawn = Drawer(operator, reader, config.sampling, config.seed)(unit, 1.5)
    groups = np.arange(20) // 5 if k else np.zeros(20, int)
    expected = []
    for entry, samples in zip(unit.entries, drawn, strict=True):
        real = operator.encode(torch.from_numpy(reader.all(entry, "reference"))).numpy()
        own = operator.encode(torch.from_numpy(samples)).numpy()
        expected.append((spread_within(own, groups) or 0) / spread(real))
    found = SeenDiversity(operator, reader, None, config).of(unit, 1.5)
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_k_without_a_diversity_has_the_weight_of_whole_sets(tmp_path: Path) -> None:
    samples = go(tmp_path)
    # one seen distribution has 100 context samples, none has 200
    assert samples.calibration.keys() == {"1", "100", "all"}
    assert samples.guidance.keys() == {"1", "100", "200", "all"}
    assert samples.guidance["200"] == samples.guidance["all"]
    for k, diversity in samples.calibration.items():
        assert samples.guidance[k] == crossing({float(w): v for w, v in diversity.items()})


def test_sets_of_one_sample_each_have_no_diversity(tmp_path: Path) -> None:
    samples = go(tmp_path, "sampling.per_context=1")
    assert samples.calibration.keys() == {"all"}
    assert len(set(samples.guidance.values())) == 1


def test_a_stop_keeps_the_weights_that_were_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    whole = go(tmp_path / "whole")
    kept = tmp_path / "stopped/run/.sampling.partial" / GUIDANCE
    with monkeypatch.context() as patch:
        patch.setattr(preemption, "requested", kept.is_file)
        with pytest.raises(Preempted):
            go(tmp_path / "stopped")
    first = json.loads(kept.read_text())
    assert {key: list(own) for key, own in first.items()} == {"all": ["1.0"], "100": [], "1": []}
    samples = go(tmp_path / "stopped")
    assert samples.calibration == whole.calibration
    assert samples.guidance == whole.guidance
    for key in whole.shards:
        np.testing.assert_array_equal(samples.samples(key), whole.samples(key))


def test_real_samples_that_are_equal_are_told(tmp_path: Path) -> None:
    source = np.random.default_rng(0)
    rows = {name: source.normal(0, 1, (count, 2)) for name, count in SIZES.items()}
    rows["b"][:] = 0.5
    told = r"guidance weight cannot be chosen by diversity \| at: distribution b, role reference"
    with pytest.raises(DataError, match=told):
        go(tmp_path, rows=rows)


def test_no_real_samples_to_choose_by_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"too few are held out \| at: distribution b.* got: 0 "):
        go(tmp_path, "shards.source.reference=0")
