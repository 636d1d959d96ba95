"""The stage on a small lattice: what it leaves of a run with baselines and a known density."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState

from sno_dist.config.load import load_config
from sno_dist.config.schema import Config
from sno_dist.embedding.fit import fit_embedding
from sno_dist.errors import ArtifactError, ConfigError, DataError, Preempted, SnoError
from sno_dist.evaluation.evaluate import Report, check_evaluation, evaluate
from sno_dist.evaluation.reference import check_counts
from sno_dist.evaluation.score_error import score_error
from sno_dist.evaluation.scorer import Scorer
from sno_dist.runtime import collectives, preemption
from sno_dist.runtime.world import World
from sno_dist.sampling.sample import sample
from sno_dist.sampling.sample_set import SampleSet, open_samples
from sno_dist.shards.build import build_shards
from sno_dist.shards.manifest import Manifest, SplitName
from sno_dist.training.train import train

METHODS = ("nearest", "pooled", "resample")


@dataclass(frozen=True)
class Run:
    config: Config
    manifest: Manifest
    samples: SampleSet
    report: Report


def lattice(root: Path, *overrides: str) -> Config:
    source = "{kind: gaussian_mixture, seen: 5, unseen: 3, model: 60, reference: 40}"
    return load_config(
        None,
        [
            "name=lattice",
            f"shards={{source: {source}, path: {root}/shards}}",
            f"run={root}/run",
            "embedding={kind: prototype}",
            "model={autoencoder: {kind: identity}, likelihood: gaussian}",
            "model.network={kind: nomad, width: 16, depth: 2}",
            "training={steps: 3, distributions: 4, targets: 8, precision: fp32, workers: 0}",
            "training.context=[1,20]",
            "sampling={guidance: 1.0, contexts: [1, 10], samples: 20, per_context: 5, steps: 4}",
            f"sampling.baselines=[{', '.join(METHODS)}]",
            "judge=null",
            "evaluation={bootstrap: 50, permutations: 19}",
            *overrides,
        ],
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    config = lattice(tmp_path_factory.mktemp("lattice"))
    manifest = build_shards(config)
    checkpoint = train(config, manifest, fit_embedding(config, manifest))
    samples = sample(config, manifest, checkpoint)
    yield Run(config, manifest, samples, evaluate(config, manifest, samples))
    # accelerate keeps the precision of a process's first run
    AcceleratorState._reset_state()


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("seed=3", "seed: 0 -> 3"),
        ("sampling.samples=12", "sampling.samples: 20 -> 12"),
        ("sampling.per_context=4", "sampling.per_context: 5 -> 4"),
    ],
)
def test_samples_that_were_drawn_otherwise_are_refused(run: Run, override: str, key: str) -> None:
    root = run.report.path.parents[2]
    told = f"samples here were made of other settings or data.*{key}"
    with pytest.raises(ArtifactError, match=told):
        open_samples(lattice(root, override), run.manifest)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("training.learning_rate=0.5", r"training\.learning_rate: .* -> 0\.5"),
        ("model.network.width=12", r"model\.network\.width: 16 -> 12"),
    ],
)
def test_samples_are_not_those_of_another_training(run: Run, override: str, key: str) -> None:
    root = run.report.path.parents[2]
    with pytest.raises(ArtifactError, match=f"checkpoint here was made of other settings.*{key}"):
        open_samples(lattice(root, override), run.manifest)


def test_samples_of_a_checkpoint_that_is_no_longer_there_are_told(run: Run, tmp_path: Path) -> None:
    config = lattice(run.report.path.parents[2], f"run={tmp_path}/run")
    shutil.copytree(run.samples.path.parent, tmp_path / "run", ignore=lambda *_: ["evaluation"])
    (last,) = (tmp_path / "run/training").glob("step-*")
    shutil.rmtree(last)
    other = lattice(run.report.path.parents[2], f"run={tmp_path}/run", "seed=5")
    train(other, run.manifest, fit_embedding(other, run.manifest))
    with pytest.raises(ArtifactError, match="samples here were made of other.*checkpoint: "):
        open_samples(config, run.manifest)


def test_a_checkpoint_that_is_gone_is_told_before_anything_is_scored(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = lattice(run.report.path.parents[2], f"run={tmp_path}/run")
    shutil.copytree(run.samples.path, tmp_path / "run/sampling")
    monkeypatch.setattr(Scorer, "share", lambda _: pytest.fail("it was scored"))
    with pytest.raises(ArtifactError, match="training has not finished here"):
        evaluate(config, run.manifest, open_samples(config, run.manifest))


def test_every_method_is_scored_from_the_same_contexts(run: Run) -> None:
    summary = run.report.summary
    assert sorted(summary["baselines"]) == sorted(METHODS)
    resample = summary["baselines"]["resample"]["unseen"]
    assert resample["copying_by_k"] == {"1": 1.0, "10": 1.0, "all": 1.0}
    assert resample["mmd"] < summary["unseen"]["mmd"]
    assert summary["baselines"]["pooled"]["seen"]["distributions"] == 5
    text = run.report.table.split("\n\n")[-1]
    assert [line.split()[0] for line in text.splitlines()[1:]] == ["operator", *METHODS]


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        (["sampling.samples=3"], ConfigError, r"fewer samples .*at: sampling\.samples"),
        (["evaluation.neighbours=20"], ConfigError, "expected: more than evaluation.neighbours=20"),
        (
            ["evaluation.neighbours=20", "sampling.samples=30"],
            DataError,
            r"too few held-out .*at: distribution .*got: 40 .*expected: at least 42.*neighbours=1",
        ),
    ],
)
def test_too_few_samples_are_told_before_any_are_drawn(
    run: Run, settings: list[str], error: type[SnoError], words: str
) -> None:
    with pytest.raises(error, match=words):
        check_counts(lattice(Path("unused"), *settings), run.manifest)


def without_held_out(manifest: Manifest, split: SplitName) -> Manifest:
    """The same, the third distribution of a split without real samples to compare with."""
    chosen = manifest.split(split)[2]
    bare = replace(chosen, roles={**chosen.roles, "reference": ()})
    return replace(manifest, entries=[bare if e is chosen else e for e in manifest.entries])


def test_all_distributions_that_the_figures_take_are_looked_at_and_no_others(run: Run) -> None:
    first = lattice(Path("unused"), "sampling.distributions=1")
    named = lattice(Path("unused"), "sampling.distributions=1", "evaluation.bandwidths=[1]")
    alone = ("embedding={kind: conditional}", "evaluation.bandwidths=[1]")
    seen_alone = lattice(Path("unused"), "sampling.baselines=[]", *alone)
    for split in ("seen", "unseen"):
        manifest = without_held_out(run.manifest, split)
        with pytest.raises(DataError, match="got: 0 .*expected: at least 2, for the median"):
            check_counts(first, manifest)
        check_counts(named, manifest)
    check_counts(seen_alone, without_held_out(run.manifest, "unseen"))
    with pytest.raises(DataError, match=r"too few held-out .*got: 0"):
        check_counts(seen_alone, without_held_out(run.manifest, "seen"))


def test_an_entry_of_a_small_unit_is_not_lost_beside_one_of_a_large(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "arrays").mkdir()
    for name in "abcd":
        rows = np.stack([rng.normal(5e4, 2e4, 200), rng.normal(3, 1, 200)], 1)
        np.save(tmp_path / f"arrays/{name}.npy", rows.astype(np.float32))
    own = [f"shards.source={{kind: folder, path: {tmp_path}/arrays}}", "sampling.baselines=[]"]
    own += ["sampling.contexts=[]", "shards.split.unseen=0.25", "training.distributions=2"]
    found = {}
    for standardise in ("true", "false"):
        config = lattice(tmp_path, *own, f"evaluation.standardise={standardise}")
        manifest = build_shards(config)
        samples = sample(config, manifest, train(config, manifest, fit_embedding(config, manifest)))
        for key in samples.shards:
            broken = rng.normal((5e4, -40), (2e4, 1e-3), (20, 2)).astype(np.float32)
            path = samples.path / samples.shards[key].file
            data = bytearray(path.read_bytes())
            start = data.index(samples.samples(key).tobytes())
            data[start : start + broken.nbytes] = broken.tobytes()
            path.write_bytes(data)
        found[standardise] = evaluate(config, manifest, samples).summary["seen"]
        shutil.rmtree(tmp_path / "run")
    assert found["false"]["mmd_rejected"] < 0.5
    assert found["true"]["mmd_rejected"] == 1
    assert found["true"]["recall"] < 0.1 < found["false"]["recall"]


def test_baselines_change_no_figure_of_the_operator(run: Run) -> None:
    own = {key: s for key, s in run.samples.shards.items() if "-" not in key.split("/")[1]}
    assert 0 < len(own) < len(run.samples.shards)
    scorer = Scorer(run.config, run.manifest, replace(run.samples, shards=own), None)
    alone = {(s.name, s.k): (s.mmds, s.p_value, s.copying) for s in scorer.share()}
    together = Scorer(run.config, run.manifest, run.samples, None).share()
    operator = [s for s in together if s.method == "operator"]
    assert {(s.name, s.k): (s.mmds, s.p_value, s.copying) for s in operator} == alone


def test_without_bandwidths_they_are_about_the_median(run: Run) -> None:
    summary = run.report.summary
    widths = [float(width) for width in summary["seen"]["mmd_by_bandwidth"]]
    ratios = sorted(width / summary["mmd_bandwidth"] for width in widths)
    assert ratios == pytest.approx([0.25, 0.5, 1, 2], rel=1e-4)
    chosen = lattice(Path(run.samples.path).parents[1], "evaluation.bandwidths=[0.5, 2]")
    scores = Scorer(chosen, run.manifest, run.samples, None).share()
    assert [list(s.mmds) for s in scores] == [[0.5, 2.0]] * len(scores)


def test_the_error_of_the_score_is_in_the_summary_the_table_and_the_page(run: Run) -> None:
    error = json.loads((run.report.path.parent / "summary.json").read_text())["score_error"]
    assert error["levels"] == [0.1, 0.2, 0.4, 0.8, 1.6]
    for split in ("seen", "unseen"):
        assert len(error[split]) == 5
        assert np.mean(error[split]) == pytest.approx(error[f"{split}_mean"])
        assert 0 < error[f"{split}_mean"] < 2  # hardly trained
    assert "error of the score" in run.report.table
    assert "Error of the score by noise level" in run.report.path.read_text()


def test_ranks_share_the_laws_and_their_sum_is_the_whole(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = []
    for rank in range(3):
        monkeypatch.setattr(collectives, "world", lambda rank=rank: World(rank=rank, size=3))
        parts.append(score_error(run.config, run.manifest, run.samples))
    whole = run.report.summary["score_error"]
    for split in ("seen", "unseen"):
        summed = np.sum([part[split] for part in parts if part], axis=0)
        np.testing.assert_allclose(summed, whole[split], rtol=1e-12)


def test_where_no_density_is_known_or_none_is_asked_for_there_is_no_error(run: Run) -> None:
    root = Path(run.samples.path).parents[1]
    for override in (
        "evaluation.score_levels=[]",
        "shards.source={kind: folder, path: elsewhere}",
        "model.autoencoder={kind: mlp}",
    ):
        assert score_error(lattice(root, override), run.manifest, run.samples) is None


def test_a_run_beside_without_a_learning_curve_is_told(run: Run, tmp_path: Path) -> None:
    config = lattice(Path(run.samples.path).parents[1], f"evaluation.beside=[{tmp_path}/other]")
    config = config.model_copy(update={"run": str(tmp_path / "run")})
    with pytest.raises(DataError, match=r"a run to show beside is not there \| at: .*other"):
        check_evaluation(config, run.manifest)
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match=r"no learning curve to show \| at: .*other"):
        evaluate(config, run.manifest, run.samples)


def test_a_level_beyond_the_schedule_is_told(run: Run) -> None:
    config = lattice(Path(run.samples.path).parents[1], "evaluation.score_levels=[1.0, 1000.0]")
    with pytest.raises(ConfigError, match=r"score_levels.*1000 cells, reached at t = 1\.12"):
        check_evaluation(config, run.manifest)


def test_a_stopped_comparison_of_scores_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preemption, "requested", lambda: True)
    with pytest.raises(Preempted):
        score_error(run.config, run.manifest, run.samples)


def test_a_card_sets_the_operator_between_real_samples_and_baselines(run: Run) -> None:
    page = run.report.path.read_text()
    name = run.manifest.split("unseen")[0].name
    card = page[page.index(f"<h3>{name}</h3>") :]
    card = card[: card.index("</section>")]
    captions = [part.split("<")[0] for part in card.split("<figcaption>")[1:]]
    assert captions == ["real", "operator", "nearest", "pooled", "resample"]
    assert card.count("MMD²") == 4
    assert card.count("floor 0.") == 1
