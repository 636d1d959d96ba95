"""Training as a whole, in one process: exact resuming, and every way it refuses to go on."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sno_dist import ScoreNeuralOperator
from sno_dist.config.load import load_config
from sno_dist.config.schema import Config
from sno_dist.embedding.fit import fit_embedding
from sno_dist.embedding.table import open_table
from sno_dist.errors import ArtifactError, ConfigError, Preempted, RunError
from sno_dist.evaluation.training_log import learning_of, read_log
from sno_dist.runtime import collectives, preemption
from sno_dist.runtime.artifact import open_artifact
from sno_dist.runtime.world import World
from sno_dist.shards.build import build_shards
from sno_dist.training.check import check_settings
from sno_dist.training.checkpoint import Checkpoint, open_checkpoint
from sno_dist.training.failure import read_batch
from sno_dist.training.train import train
from tests.unit.shards.small import small_config

TINY = (
    "embedding.width=16",
    "embedding.features=4",
    "model.autoencoder.width=8",
    "model.autoencoder.channels=2",
    "model.network.width=32",
    "model.network.hidden=32",
    "model.network.blocks=2",
    "training.steps=8",
    "training.save_every=3",
    "training.log_every=2",
    "training.picture_every=1000",
    "training.warmup=2",
    "training.workers=0",
    "training.precision=fp32",
)


@pytest.fixture(autouse=True)
def fresh_accelerator() -> Iterator[None]:
    """Each run is a process of its own in life; accelerate keeps its precision for good."""
    yield
    AcceleratorState._reset_state()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    build_shards(small_config(root))
    return root / "shards"


def tiny(root: Path, shards: Path, *overrides: str) -> Config:
    return small_config(root, *TINY, f"shards.path={shards}", *overrides)


def go(config: Config) -> Checkpoint:
    manifest = build_shards(config)
    return train(config, manifest, fit_embedding(config, manifest))


def weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    # a copy: the file is mapped, and a test may write to it
    return {k: v.clone() for k, v in load_file(checkpoint.path / "raw.safetensors").items()}


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Raise the flag that a signal raises, when the loop asks for the `step`-th time."""
    asked = iter(range(10**6))
    monkeypatch.setattr(preemption, "requested", lambda: next(asked) == step - 1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_run_goes_on_bit_for_bit(
    tmp_path: Path,
    shards: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    precision: str,
) -> None:
    whole = go(tiny(tmp_path / "a", shards, f"training.precision={precision}"))
    config = tiny(tmp_path / "b", shards, f"training.precision={precision}")
    for step, done in ((2, 2), (3, 5)):
        stop_at(monkeypatch, step)
        with pytest.raises(Preempted, match=f"asked to stop.*step {done} saved.*the same command"):
            go(config)
    monkeypatch.undo()
    resumed = go(config)
    # from the start again it would end in the same bits
    assert re.findall(r"training goes on from step (\d+)", capsys.readouterr().err) == ["2", "5"]
    told = json.loads((tmp_path / "b/run/provenance.json").read_text())
    assert len(told["earlier"]) == 2
    assert all(attempt.keys() == told.keys() - {"earlier"} for attempt in told["earlier"])
    assert resumed.step == whole.step == 8
    mine, theirs = weights(resumed), weights(whole)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    averaged = [load_file(c.path / "model.safetensors") for c in (resumed, whole)]
    assert all(torch.equal(averaged[0][name], averaged[1][name]) for name in averaged[1])


@pytest.mark.parametrize("transform", ["{kind: simplex}", "{kind: box, low: 0.0, high: 1.0}"])
def test_context_sets_of_constrained_samples_train_an_encoder(
    tmp_path: Path, transform: str
) -> None:
    checkpoint = go(
        load_config(
            None,
            [
                *(f"run={tmp_path}/run", f"shards.path={tmp_path}/shards", "judge=null"),
                "shards.source={kind: dirichlet, seen: 8, unseen: 2, model: 60, reference: 8}",
                "embedding={kind: set_encoder, width: 16, features: 4}",
                f"model={{transform: {transform}, autoencoder: {{kind: identity}}}}",
                "model.network={kind: nomad, width: 16, depth: 2}",
                "model.likelihood=gaussian",
                "training={steps: 2, warmup: 1, precision: fp32, workers: 0, context: [1, 12]}",
                "training.distributions=5",
            ],
        )
    )
    assert checkpoint.step == 2


def give_bf16(monkeypatch: pytest.MonkeyPatch, has: bool) -> None:
    """A machine whose CPU and GPU have bf16, or have not."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has)


@pytest.mark.parametrize("here", ["fp32", "bf16"])
def test_the_default_precision_is_the_device_s(
    tmp_path: Path,
    shards: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    here: str,
) -> None:
    give_bf16(monkeypatch, here == "bf16")
    found = go(tiny(tmp_path / "a", shards, "training.precision=auto"))
    told = capsys.readouterr().err
    assert ("precision: fp32, since this device has no bf16" in told) == (here == "fp32")
    assert json.loads((tmp_path / "a/run/provenance.json").read_text())["precision"] == here
    AcceleratorState._reset_state()
    said = go(tiny(tmp_path / "b", shards, f"training.precision={here}"))
    mine, theirs = weights(found), weights(said)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_a_precision_that_changes_on_the_way_is_told(
    tmp_path: Path,
    shards: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = tiny(tmp_path, shards, "training.precision=auto")
    for has in (False, True):
        AcceleratorState._reset_state()
        give_bf16(monkeypatch, has)
        stop_at(monkeypatch, 1)
        with pytest.raises(Preempted):
            go(config)
    assert "precision: bf16 from here on; fp32 before" in capsys.readouterr().err
    # an earlier version's attempt does not tell
    path = tmp_path / "run/provenance.json"
    told = json.loads(path.read_text())
    del told["precision"]
    path.write_text(json.dumps(told))
    stop_at(monkeypatch, 1)
    with pytest.raises(Preempted):
        go(config)
    assert "from here on" not in capsys.readouterr().err


def test_what_is_trained_may_be_opened_on_more_ranks_than_could_train_it(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(tmp_path, shards)
    monkeypatch.setattr(collectives, "world", lambda: World(rank=0, size=7))
    with pytest.raises(ConfigError, match="more ranks than distributions in a batch"):
        check_settings(config)
    monkeypatch.undo()
    go(config)
    monkeypatch.setattr(collectives, "world", lambda: World(rank=0, size=7))
    check_settings(config)


def test_what_a_run_leaves(tmp_path: Path, shards: Path) -> None:
    checkpoint = go(tiny(tmp_path, shards))
    run = tmp_path / "run"
    assert sorted(p.name for p in (run / "training").glob("step-*")) == [
        "step-00000006",
        "step-00000008",
    ]
    assert (run / "training/LATEST").read_text() == "step-00000008\n"
    # a kill between a checkpoint and its name
    (run / "training/LATEST").write_text("step-00000006\n")
    go(tiny(tmp_path, shards))
    assert (run / "training/LATEST").read_text() == "step-00000008\n"
    operator = ScoreNeuralOperator.from_pretrained(run)
    averaged = load_file(checkpoint.path / "model.safetensors")
    assert all(torch.equal(v, averaged[k]) for k, v in operator.state_dict().items())
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    assert [e.step for e in events.Scalars("loss/score")] == [2, 4, 6, 8]
    assert {"pictures/reconstruction", "pictures/seen", "pictures/unseen"} <= set(
        events.Tags()["images"]
    )
    rows = (run / "tensorboard").rglob("metadata.tsv")
    assert len(next(rows).read_text().splitlines()) == 101


def test_a_damaged_newest_checkpoint_is_passed_over(
    tmp_path: Path, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tiny(tmp_path, shards)
    first = weights(go(config))
    newest = tmp_path / "run/training/step-00000008/raw.safetensors"
    data = bytearray(newest.read_bytes())
    data[-5] ^= 255
    newest.write_bytes(data)
    second = weights(go(config))
    assert capsys.readouterr().err.count("passing over a damaged checkpoint") == 1
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_saved_outlives_a_damaged_newer_one(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(tmp_path, shards, "training.keep=1", "training.save_every=8")
    go(config)
    training = tmp_path / "run/training"
    # what lies there now is to be passed over, and nothing older is left
    (training / "step-00000008/COMPLETE").write_text("{")
    stop_at(monkeypatch, 4)
    with pytest.raises(Preempted, match="step 4 saved"):
        go(config)
    assert [path.name for path in training.glob("step-*")] == ["step-00000004"]
    monkeypatch.undo()
    assert go(config).step == 8


def test_curves_have_each_step_once_whatever_was_interrupted(tmp_path: Path, shards: Path) -> None:
    config = tiny(tmp_path, shards)
    run = tmp_path / "run"
    go(config)
    # as after a kill behind step 6, which was logged and saved; then behind none that was saved
    for left in (("step-00000006",), ()):
        for path in (run / "training").glob("step-*"):
            if path.name not in left:
                shutil.rmtree(path)
        go(config)
        events = EventAccumulator(str(run / "tensorboard"))
        events.Reload()
        assert [e.step for e in events.Scalars("loss/score")] == [2, 4, 6, 8]
        lines = (run / "logs/rank-00000.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [2, 4, 6, 8]


def test_what_is_due_at_the_step_of_a_stop_is_shown(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(tmp_path, shards, "training.picture_every=4")
    stop_at(monkeypatch, 4)
    with pytest.raises(Preempted):
        go(config)
    monkeypatch.undo()
    go(config)
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    assert [event.step for event in events.Images("pictures/seen")] == [4, 8]


def test_what_is_left_of_a_checkpoint_is_dropped_by_the_next(tmp_path: Path, shards: Path) -> None:
    training = tmp_path / "run/training"
    for left in (".step-00000005.partial", "step-00000006", ".step-00000003.old"):
        (training / left).mkdir(parents=True)
        (training / left / "raw.safetensors").write_bytes(b"half")
    go(tiny(tmp_path, shards))
    assert not list(training.glob(".step*"))
    for step in (6, 8):
        open_artifact(training / f"step-{step:08d}", "checkpoint")


def test_a_large_population_is_shown_in_part(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sno_dist.training.pictures.PROJECTED", 7)
    go(tiny(tmp_path, shards))
    rows = (tmp_path / "run/tensorboard").rglob("tensors.tsv")
    assert len(next(rows).read_text().splitlines()) == 7


@pytest.mark.parametrize(("stage", "refused"), [(2, False), (3, True), (None, True)])
def test_gradients_of_gradients_need_whole_weights(
    tmp_path: Path,
    shards: Path,
    monkeypatch: pytest.MonkeyPatch,
    stage: int | None,
    refused: bool,
) -> None:
    config = tiny(tmp_path, shards, "training.objective.matching=sliced")
    if stage is None:
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    else:
        file = tmp_path / "zero.json"
        file.write_text(json.dumps({"zero_optimization": {"stage": stage}}))
        monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
        monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(file))
    if refused:
        with pytest.raises(ConfigError, match=r"takes gradients of gradients.*got: sliced"):
            check_settings(config)
    else:
        check_settings(config)


def test_few_samples_of_a_distribution_make_a_small_picture(tmp_path: Path) -> None:
    few = ("shards.source.model=5", "training.context=[1,2]", "training.targets=3")
    go(small_config(tmp_path, *TINY, *few))
    events = EventAccumulator(str(tmp_path / "run/tensorboard"))
    events.Reload()
    assert "pictures/reconstruction" in events.Tags()["images"]


def test_what_comes_before_is_of_the_same_config_and_shards(tmp_path: Path, shards: Path) -> None:
    config = tiny(tmp_path, shards)
    manifest = build_shards(config)
    train(config, manifest, fit_embedding(config, manifest))
    other = tiny(tmp_path, shards, "embedding.width=24")
    with pytest.raises(ArtifactError, match=r"embedding here was made.*embedding\.width: 16 -> 24"):
        open_table(other, manifest)
    open_checkpoint(tiny(tmp_path, shards, "seed=3", "training.workers=1"), manifest)
    with pytest.raises(ArtifactError, match=r"checkpoint here was.*training\.clip: 1\.0 -> 2\.0"):
        open_checkpoint(tiny(tmp_path, shards, "training.clip=2"), manifest)
    with pytest.raises(ArtifactError, match=r"checkpoint here was made.*got: shards: "):
        open_checkpoint(config, replace(manifest, digest="another"))


def test_another_config_in_the_same_folder(tmp_path: Path, shards: Path) -> None:
    go(tiny(tmp_path, shards))
    with pytest.raises(
        ArtifactError, match=r"other settings or data.*training\.learning_rate: 0.002 -> 0.5"
    ):
        go(tiny(tmp_path, shards, "training.learning_rate=0.5"))
    # what changes only how it runs is no other config
    go(tiny(tmp_path, shards, "training.workers=1", "training.micro=2"))


def test_a_checkpoint_that_the_disk_has_no_room_for(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(tmp_path, shards)
    stop_at(monkeypatch, 2)
    with pytest.raises(Preempted):
        go(config)
    monkeypatch.undo()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # what a full disk says to who writes more than so many bytes
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(
            ArtifactError, match=r"cannot be written \| at: .*training \| got: .*large"
        ):
            go(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (kept,) = (tmp_path / "run/training").glob("step-*")
    open_artifact(kept, "checkpoint")
    assert kept.name == "step-00000002"
    assert go(config).step == 8


def test_two_runs_in_one_folder(tmp_path: Path, shards: Path) -> None:
    from sno_dist.runtime.lock import locked

    config = tiny(tmp_path, shards)
    pattern = rf"cannot be taken.*in use by process {os.getpid()}"
    with locked(tmp_path / "run"), pytest.raises(RunError, match=pattern):
        go(config)
    go(config)
    # what is trained is read alone, as from a disk that can only be read
    with locked(tmp_path / "run"):
        assert go(config).step == 8


def test_a_loss_that_is_not_finite(tmp_path: Path, shards: Path) -> None:
    config = tiny(tmp_path, shards, "training.learning_rate=1e30")
    with pytest.raises(RunError, match="not finite at step [0-9]; nothing was updated"):
        go(config)
    (kept,) = (tmp_path / "run/training").glob("failed-step-*")
    operator = ScoreNeuralOperator.from_pretrained(kept)
    losses = operator(read_batch(kept, 0), config.training.objective, 1.0)
    losses["total"].backward()
    gradient = torch.stack([p.grad.abs().max() for p in operator.parameters()])
    assert not (losses["total"].isfinite() and gradient.isfinite().all())


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["references=3"], "references are samples of data space"),
        (["objective.drop=0"], "guidance needs a null embedding that was trained"),
        (["targets=1"], "takes two targets"),
        (["distributions=1"], "takes two of them"),
        (["objective.matching=sliced", "objective.score_gradient=1.0"], "has a gradient"),
        (["objective.matching=generalised"], "coordinates of the data"),
        (["objective.matching=sliced", "targets=2"], "other targets' noise"),
    ],
)
def test_settings_that_do_not_go_together(
    tmp_path: Path, shards: Path, overrides: list[str], words: str
) -> None:
    settings = [f"training.{override}" for override in overrides]
    with pytest.raises(ConfigError, match=words):
        go(tiny(tmp_path, shards, "model.base=gaussian", *settings))


def test_acceptance_takes_an_embedding_of_what_is_drawn(tmp_path: Path, shards: Path) -> None:
    with pytest.raises(ConfigError, match="accepted by its own embedding"):
        go(tiny(tmp_path, shards, "sampling.acceptance=0.9", "embedding={kind: conditional}"))


def test_launcher_and_config_must_agree(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ConfigError, match=r"disagree on precision.*bf16 against fp32"):
        go(tiny(tmp_path, shards))
    give_bf16(monkeypatch, False)
    with pytest.raises(ConfigError, match="got: bf16 against fp32, by auto"):
        go(tiny(tmp_path, shards, "training.precision=auto"))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="fp16 training needs a GPU"):
            go(tiny(tmp_path, shards, "training.precision=fp16"))


@pytest.mark.parametrize(
    ("embedding", "base", "constant"),
    [
        ("{kind: kme}", "none", True),
        ("{kind: kme}", "gaussian", False),
        ("{kind: prototype}", "none", False),
        ("{kind: set_encoder, width: 16, features: 4}", "none", False),
    ],
)
def test_a_u_is_called_constant_where_training_leaves_it_alone(
    tmp_path: Path, shards: Path, embedding: str, base: str, constant: bool
) -> None:
    settings = (f"embedding={embedding}", f"model.base={base}")
    folder = go(tiny(tmp_path, shards, *settings)).path.parent
    early, late = (
        ScoreNeuralOperator.from_pretrained(folder / f"step-{step:08d}") for step in (6, 8)
    )
    context = torch.randint(0, 256, (5, *late.spec.shape), dtype=torch.uint8)
    assert late.has_constant_u == constant
    assert torch.equal(early.embed(context), late.embed(context)) == constant


def test_a_probe_tells_accuracies_and_changes_nothing(tmp_path: Path, shards: Path) -> None:
    plain = go(tiny(tmp_path / "plain", shards))
    AcceleratorState._reset_state()
    probe = "training.probe={every: 4, distributions: 2, samples: 3}"
    judge = ("judge.width=4", "judge.epochs=1", "judge.min_updates=1")
    settings = (probe, *judge, "sampling.steps=2")
    probed = go(tiny(tmp_path / "probed", shards, *settings))
    for name, tensor in weights(plain).items():
        assert torch.equal(tensor, weights(probed)[name])
    learning = read_log(tmp_path / "probed/run").learning
    assert learning is not None
    assert learning.steps == [4, 8]
    assert learning.minutes[1] > learning.minutes[0] > 0
    assert learning.accuracies.keys() == {"seen", "unseen", "unseen_one"}
    assert all(6 * share % 1 == pytest.approx(0, abs=1e-9) for share in learning.accuracies["seen"])
    assert read_log(tmp_path / "plain/run").learning is None
    shutil.copytree(tmp_path / "probed/run/logs", tmp_path / "twin/run/logs")
    runs = [str(tmp_path / name / "run") for name in ("probed", "twin")]
    assert list(learning_of(runs)) == runs
    assert list(learning_of(runs[:1])) == ["run"]
