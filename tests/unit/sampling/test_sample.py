"""The stage with baselines: what it leaves, that it resumes, and what it refuses."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sno_dist.errors import ArtifactError, ConfigError, Preempted
from sno_dist.runtime import preemption
from sno_dist.sampling.sample import SECONDS, sample
from sno_dist.sampling.sample_set import SampleSet, open_samples
from sno_dist.score.preconditioned import PreconditionedScore
from sno_dist.shards.build import build_shards
from sno_dist.training.checkpoint import Checkpoint
from tests.unit.sampling.gaussians import arrays_config, gaussians_config, untrained

ALL = "sampling.baselines=[individual, nearest, pooled, resample, jitter, kernel, oism]"
TIMED = {"index.json", "COMPLETE"}


def go(root: Path, *overrides: str) -> SampleSet:
    config = gaussians_config(root, "sampling.individual.group=1", *overrides)
    manifest = build_shards(config)
    untrained(config, manifest).save_pretrained(root / "operator")
    checkpoint = Checkpoint(path=root / "operator", step=0, digest="untrained")
    return sample(config, manifest, checkpoint)


def files(samples: SampleSet) -> dict[str, bytes]:
    found = [path for path in samples.path.rglob("*") if path.is_file()]
    return {
        path.relative_to(samples.path).as_posix(): path.read_bytes()
        for path in found
        if path.name not in TIMED
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> SampleSet:
    return go(tmp_path_factory.mktemp("whole"), ALL)


def test_baselines_lie_beside_the_operator_s_samples(whole: SampleSet, tmp_path: Path) -> None:
    labels = {split: set[str]() for split in ("seen", "unseen")}
    for key in whole.shards:
        split, label, _ = key.split("/")
        labels[split].add(label)
        assert whole.samples(key).shape == (20, 2)
    by_k = {"nearest", "resample", "jitter", "kernel", "oism"}
    whole_alone = {"all"} | {f"{method}-all" for method in (*by_k, "individual", "pooled")}
    assert labels["seen"] == whole_alone
    few = {f"{method}-k{k}" for method in by_k for k in (1, 10)}
    assert labels["unseen"] == whole_alone | {"k1", "k10"} | few
    assert len(whole.embeddings) == 4
    assert not (whole.path / ".records").exists()
    plain = go(tmp_path)
    assert len(plain.shards) == 3 + 3
    for key in plain.shards:
        np.testing.assert_array_equal(plain.samples(key), whole.samples(key))


def test_no_more_are_integrated_together_than_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, score = [], PreconditionedScore.score

    def counted(model: PreconditionedScore, u: torch.Tensor, *rest: Any) -> torch.Tensor:
        sizes.append(len(u))
        return score(model, u, *rest)

    monkeypatch.setattr(PreconditionedScore, "score", counted)
    found, alone = {}, "sampling.baselines=[individual]"
    for batch in (7, 20):
        (tmp_path / str(batch)).mkdir()
        found[batch] = go(tmp_path / str(batch), f"sampling.batch={batch}", alone)
    apart, together = found[7], found[20]
    assert set(sizes) == {7, 6, 20}
    for key in together.shards:
        np.testing.assert_allclose(apart.samples(key), together.samples(key), rtol=1e-4, atol=1e-4)


# the flag is asked for before each unit (and each distribution of the shards, ten times in all),
# before each step of training, and at the end of a share: among the operator's units, inside the
# second of four trainings, and among the other baselines
@pytest.mark.parametrize("call", [17, 55, 115])
def test_a_stopped_stage_goes_on_to_the_same_bytes(
    whole: SampleSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    call: int,
) -> None:
    asked = iter(range(10**6))
    with monkeypatch.context() as patch:
        patch.setattr(preemption, "requested", lambda: next(asked) >= call)
        with pytest.raises(Preempted):
            go(tmp_path, ALL)
    partial = tmp_path / "run/.sampling.partial"
    kept = {path: path.stat().st_mtime_ns for path in partial.rglob("*.tar")}
    assert kept
    before = json.loads((partial / SECONDS).read_text())
    capsys.readouterr()
    samples = go(tmp_path, ALL)
    dealt = re.findall(r"^sampling(?: baselines)?: (\d+)/", capsys.readouterr().err, re.MULTILINE)
    assert sum(map(int, dealt)) == len(whole.shards) - len(kept)
    for path, written in kept.items():
        assert (samples.path / path.relative_to(partial)).stat().st_mtime_ns == written
    assert files(samples) == files(whole)
    assert samples.seconds > before > 0


def of(root: Path, rows: dict[str, np.ndarray], *overrides: str) -> SampleSet:
    config = arrays_config(root, rows, "sampling.contexts=[1]", *overrides)
    manifest = build_shards(config)
    untrained(config, manifest).save_pretrained(root / "operator")
    return sample(config, manifest, Checkpoint(path=root / "operator", step=0, digest="untrained"))


def test_the_nearest_by_u_is_not_that_of_the_nearest_size(tmp_path: Path) -> None:
    """A base's statistic at the end of u holds the sample count."""
    laws = {"a": (0.0, 300), "b": (1.0, 40), "c": (20.0, 300), "d": (-20.0, 310)}
    rng = np.random.default_rng(0)
    rows = {name: rng.normal(mean, 0.1, (count, 2)) for name, (mean, count) in laws.items()}
    samples = of(tmp_path, rows, "sampling.baselines=[nearest]", "model.base=gaussian")
    np.testing.assert_allclose(samples.samples("unseen/nearest-all/a"), 1.0, atol=0.5)
    assert samples.entries == 2
    assert len(samples.embeddings["a"]) > 2


def test_jittered_compositions_add_up_to_one(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = {name: rng.dirichlet([1, 2, 4], 100) for name in "abcd"}
    asked = ("sampling.baselines=[jitter]", "model.transform={kind: simplex}")
    samples = of(tmp_path, rows, *asked).samples("unseen/jitter-all/a")
    assert samples.min() > 0
    np.testing.assert_allclose(samples.sum(1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("training.objective.weight=noise", "training.objective.weight"),
        ("training.clip=2.0", "training.clip"),
        ("sampling.individual.steps=5", "sampling.individual.steps"),
        ("sampling.kernel.form=diagonal", "sampling.kernel.form"),
        ("sampling.oism.order=4", "sampling.oism.order"),
    ],
)
def test_baselines_of_other_settings_are_refused(whole: SampleSet, override: str, key: str) -> None:
    root = whole.path.parents[1]
    with pytest.raises(ArtifactError, match=key):
        go(root, ALL, override)


def test_an_option_that_is_left_out_again_is_another_setting(tmp_path: Path) -> None:
    own = "sampling.individual.network={kind: nomad, width: 8, depth: 1}"
    config, other = gaussians_config(tmp_path, own), gaussians_config(tmp_path)
    manifest = build_shards(config)
    untrained(config, manifest).save_pretrained(tmp_path / "operator")
    sample(config, manifest, Checkpoint(path=tmp_path / "operator", step=0, digest="untrained"))
    open_samples(config, manifest)
    with pytest.raises(ArtifactError, match=r"sampling\.individual\.network"):
        open_samples(other, manifest)


def test_what_a_latent_has_too_many_entries_for_is_refused_before_anything_is_drawn(
    tmp_path: Path,
) -> None:
    rows = np.random.default_rng(0).standard_normal((2, 40, 3))
    asked = ("sampling.contexts=[1]", "sampling.baselines=[kernel, oism]", "sampling.oism.order=9")
    config = arrays_config(tmp_path, dict(zip("ab", rows, strict=True)), *asked)
    manifest = build_shards(config)
    untrained(config, manifest).save_pretrained(tmp_path / "operator")
    checkpoint = Checkpoint(path=tmp_path / "operator", step=0, digest="untrained")
    with pytest.raises(ConfigError, match="of order 9 in 3 dimensions"):
        sample(config, manifest, checkpoint)
    assert not list((tmp_path / "run").rglob("*.tar"))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            ["sampling.individual.network={kind: nomad, width: 1}", "model.prediction=noise"],
            "narrower than the latent",
        ),
        (["sampling.guidance=1.5", "training.objective.drop=0"], "null embedding that was trained"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is(
    tmp_path: Path, asked: list[str], words: str
) -> None:
    rows = np.random.default_rng(0).standard_normal((2, 100, 2))
    with pytest.raises(ConfigError, match=words):
        of(tmp_path, dict(zip("ab", rows, strict=True)), "sampling.baselines=[individual]", *asked)
    assert not list((tmp_path / "run").rglob("*.tar"))
