"""One, two and three ranks under `accelerate launch` compute the same, stage by stage.

That every step sees the same samples in every world is asserted in unit/training/test_parts.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sno_dist.config.load import load_config
from sno_dist.sampling.sample_set import SampleSet, open_samples
from sno_dist.shards.manifest import open_manifest
from tests.distributed.launch import launch
from tests.pipeline.small import contents, last_log, plain, small_run

# the first test waits for all the launches
pytestmark = pytest.mark.timeout(400)

SESSION = Path(__file__).parents[1] / "distributed/session_program.py"
WORKERS = {1: 0, 2: 1, 3: 4}
"""Ranks -> loader workers of each."""
OTHERS = (2, 3)
# One number for all samples of a set, which the softmax over them cancels: its gradient is rounding
# alone, which Adam blows up to whole steps.
UNSEEN_BY_THE_LOSS = {"embedder.query.bias"}
BASELINES = (
    "sampling.baselines=[individual,finetuned,nearest,kernel,oism]",
    "sampling.individual={steps: 4, group: 15, batch: 32}",
    "sampling.finetuned={steps: 4, group: 15}",
    "model.base=gaussian",
)
SOME = "sampling.acceptance=0.8"
OWN = {"k1", "k4", "all"}
OFTEN = {f"{method}-{k}" for method in ("nearest", "kernel", "oism") for k in OWN}
LABELS = OWN | OFTEN | {"individual-all", "finetuned-all", "finetuned-k1"}
NO_BASELINES = "sampling.baselines=[]"
OF_SET_ENCODER = ("embedding.width=16", "embedding.features=4")


@dataclass(frozen=True, kw_only=True, slots=True)
class Worlds:
    """What one, two and three ranks left, in a folder for each number of ranks.

    There: `shards`; `run`, trained and sampled there; `kme`, that embedding. Of two and three
    ranks also `again`, where `run` found what one rank trained, and sampled and evaluated. Of
    two also `micro`, trained with gradient accumulation. They share one judge.
    """

    root: Path

    def at(self, size: int, name: str) -> Path:
        return self.root / str(size) / name

    def line(self, command: str, size: int, name: str, *overrides: str) -> list[str]:
        folders = self.at(size, "shards"), self.at(size, name), self.root / "judge"
        return [command, *small_run(*folders, *BASELINES, SOME, *overrides)]

    def samples(self, size: int, *overrides: str) -> SampleSet:
        config = load_config(None, self.line("", size, "run", *overrides)[1:])
        return open_samples(config, open_manifest(config))

    def launch(self, size: int) -> None:
        kme = ("embedding.kind=kme", "embedding.samples=20")
        commands = ("run",) if size == 1 else ("build-shards", "fit-embedding", "train", "sample")
        workers = f"training.workers={WORKERS[size]}"
        lines = [self.line(command, size, "run", workers) for command in commands]
        if size > 1:
            lines[-1].append(NO_BASELINES)  # those of `again` are compared
        fit = self.line("fit-embedding", size, "kme", *kme)
        lines.append([word for word in fit if word not in OF_SET_ENCODER])
        if size > 1:
            for stage in ("embedding", "training"):
                shutil.copytree(self.at(1, "run") / stage, self.at(size, "again") / stage)
            lines.append(self.line("run", size, "again"))
        if size == 2:
            # three distributions on each rank: a micro-batch of two, and one of one
            for command in ("fit-embedding", "train"):
                lines.append(self.line(command, size, "micro", "training.micro=2"))
        plan = self.at(size, "lines.json")
        plan.parent.mkdir(exist_ok=True)
        plan.write_text(json.dumps(lines))
        done = launch(size, SESSION, plan, timeout=200)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    made = Worlds(root=tmp_path_factory.mktemp("worlds"))
    for size in WORKERS:
        (made.root / str(size)).mkdir()
        made.launch(size)
    return made


@pytest.mark.parametrize("size", OTHERS)
def test_shards_are_the_same_bytes(worlds: Worlds, size: int) -> None:
    own, reference = contents(worlds.at(size, "shards")), contents(worlds.at(1, "shards"))
    assert len(reference) > 200
    assert own == reference


@pytest.mark.parametrize("size", OTHERS)
def test_a_fitted_embedding_is_the_same_bytes(worlds: Worlds, size: int) -> None:
    own, reference = (contents(worlds.at(s, "kme") / "embedding") for s in (size, 1))
    assert "fitted.safetensors" in reference
    assert own == reference


@pytest.mark.parametrize(("size", "name"), [(2, "run"), (3, "run"), (2, "micro")])
def test_training_ends_at_the_same_loss_and_weights(worlds: Worlds, size: int, name: str) -> None:
    own, reference = last_log(worlds.at(size, name)), last_log(worlds.at(1, "run"))
    assert own["step"] == reference["step"] == 12
    losses = [key for key in reference if key.startswith("loss/")]
    assert len(losses) == 4
    assert {k: own[k] for k in losses} == pytest.approx({k: reference[k] for k in losses}, rel=1e-4)
    checkpoint = "training/step-00000012"
    for file in ("raw.safetensors", "model.safetensors"):
        mine, theirs = (
            load_file(folder / checkpoint / file)
            for folder in (worlds.at(size, name), worlds.at(1, "run"))
        )
        assert mine.keys() == theirs.keys()
        for state in (mine, theirs):  # an axis and its opposite are the same
            basis, spread = (state.pop(f"score_model.base.{n}") for n in ("basis", "within"))
            state["axes"] = basis * spread @ basis.T
        for key in theirs.keys() - UNSEEN_BY_THE_LOSS:
            torch.testing.assert_close(mine[key], theirs[key], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("size", OTHERS)
def test_samples_of_the_same_weights_are_the_same_bytes(worlds: Worlds, size: int) -> None:
    own, reference = (
        contents(worlds.at(s, name) / "sampling") for s, name in ((size, "again"), (1, "run"))
    )
    # what names the seconds that it took, and what lists the hash of that
    timed = {"index.json", "COMPLETE"}
    assert own.keys() == reference.keys()
    assert {name.split("/")[1] for name in own if name.startswith("unseen")} == LABELS
    assert [name for name in own if own[name] != reference[name] and name not in timed] == []
    indices = [
        plain(worlds.at(s, n) / "sampling/index.json") for s, n in ((size, "again"), (1, "run"))
    ]
    assert indices[0] == indices[1]
    assert indices[0]["calibration"].keys() == indices[0]["guidance"].keys() == {"1", "4", "all"}


@pytest.mark.parametrize("size", OTHERS)
def test_samples_of_own_weights_are_the_same_but_for_rounding(worlds: Worlds, size: int) -> None:
    own, reference = worlds.samples(size, NO_BASELINES), worlds.samples(1)
    operators = [key for key in reference.shards if "-" not in key.split("/")[1]]
    assert sorted(own.shards) == sorted(operators)
    for key in operators:
        gap = own.samples(key).astype(np.int16) - reference.samples(key)
        assert np.abs(gap).max() <= 1, key
        assert np.abs(gap).mean() / 255 < 1e-5, key
    for name, u in reference.embeddings.items():
        np.testing.assert_allclose(own.embeddings[name], u, atol=1e-5)


@pytest.mark.parametrize("size", OTHERS)
def test_figures_of_the_same_samples_are_the_same_to_the_last_digit(
    worlds: Worlds, size: int
) -> None:
    own = plain(worlds.at(size, "again") / "evaluation/summary.json")
    assert own == plain(worlds.at(1, "run") / "evaluation/summary.json")
    assert own["unseen"]["distributions"] == 30
