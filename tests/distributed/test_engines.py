"""Training under DeepSpeed's ZeRO and fully sharded: what data parallelism computes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.distributed.launch import ROOT, launch

# a launch with DeepSpeed in it imports for ten seconds, on a busy machine for more
pytestmark = pytest.mark.timeout(900)

CANCELS = "embedder.query.bias"
"""Adds the same to the logit of every sample: its gradient is rounding alone, about 1e-10."""

DATA_PARALLEL = ["--config_file", "launch/accelerate/one_machine.yaml"]
FULLY_SHARDED = ["--config_file", "launch/accelerate/fsdp2.yaml"]
STEPS, EVERY = 12, 3
OVERRIDES = [f"training.steps={STEPS}", f"training.save_every={EVERY}", "training.keep=9"]
OVERRIDES += ["training.log_every=1"]


def zero(file: str) -> list[str]:
    path = f"launch/deepspeed/{file}.json"
    return [
        *["--config_file", "launch/accelerate/deepspeed.yaml"],
        *["--deepspeed_config_file", path],
    ]


ENGINES = {"data parallel": DATA_PARALLEL}
ENGINES |= {name: zero(name) for name in ("zero1", "zero2", "zero3", "zero2_offload")}
ENGINES |= {"fully sharded": FULLY_SHARDED}


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two data-parallel ranks, undisturbed; what others start from lies beside it."""
    folder = tmp_path_factory.mktemp("engines")
    done = train(folder / "reference", DATA_PARALLEL, stage="build-shards")
    assert done.returncode == 0, done.stderr
    done = train(folder / "reference", DATA_PARALLEL, stage="fit-embedding")
    assert done.returncode == 0, done.stderr
    shutil.copytree(folder / "reference", folder / "fresh")
    done = train(folder / "reference", DATA_PARALLEL)
    assert done.returncode == 0, done.stderr
    return folder / "reference"


def train(
    run: Path, engine: list[str], *overrides: str, ranks: int = 2, stage: str = "train"
) -> subprocess.CompletedProcess[str]:
    settings = ["-c", str(ROOT / "configs/smoke.yaml"), f"run={run}"]
    settings += [f"shards.path={run.parent / 'shards'}", *OVERRIDES, *overrides]
    return launch(ranks, "sno_dist", stage, *settings, options=engine, timeout=300)


def fresh(reference: Path, name: str) -> Path:
    run = reference.with_name(name)
    shutil.copytree(reference.with_name("fresh"), run)
    return run


def losses(run: Path) -> dict[int, float]:
    rows = [json.loads(row) for row in (run / "logs/rank-00000.jsonl").read_text().splitlines()]
    return {row["step"]: row["loss/total"] for row in rows if "loss/total" in row}


def state(run: Path, step: int) -> dict[str, torch.Tensor]:
    """Weights, averaged weights and moments of a checkpoint."""
    folder = run / f"training/step-{step:08d}"
    files = ("raw", "model", "optimizer")
    return {
        f"{file}/{name}": tensor.double()
        for file in files
        for name, tensor in load_file(folder / f"{file}.safetensors").items()
    }


def assert_same(run: Path, reference: Path, step: int = STEPS) -> None:
    """To the rounding of sums in another order; Adam divides by what may be small."""
    found, expected = state(run, step), state(reference, step)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        near = 1e-4
        if name.startswith("optimizer/"):
            # of the gradient's size, or its square's
            near = 1e-9 if name.endswith(CANCELS) else 1e-3 * float(tensor.abs().max())
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=near, msg=name)
    there = losses(reference)
    assert {s: pytest.approx(there[s], rel=1e-5) for s in there} == losses(run)


@pytest.fixture(scope="module")
def zero3(reference: Path) -> Path:
    """A run under ZeRO-3."""
    run = fresh(reference, "zero3")
    done = train(run, ENGINES["zero3"])
    assert done.returncode == 0, done.stderr
    return run


def test_zero3_computes_what_data_parallelism_does(reference: Path, zero3: Path) -> None:
    assert_same(zero3, reference)


@pytest.mark.parametrize("name", ["zero1", "zero2", "zero2_offload", "fully sharded"])
def test_an_engine_computes_what_data_parallelism_does(reference: Path, name: str) -> None:
    run = fresh(reference, name)
    done = train(run, ENGINES[name])
    assert done.returncode == 0, done.stderr
    assert_same(run, reference)


ROUTES = {
    "engines": [("zero3", 2), ("fully sharded", 2), ("zero1", 1), ("data parallel", 3)],
    "stages": [("zero2", 2), ("zero2_offload", 2), ("zero3", 3), ("fully sharded", 3)],
    "worlds": [("data parallel", ranks) for ranks in (1, 2, 4, 1)],
}


@pytest.mark.parametrize("route", ROUTES)
def test_a_checkpoint_goes_from_engine_to_engine_and_world_to_world(
    reference: Path, route: str
) -> None:
    """Each takes over what the one before left, three steps on, and trains to the end."""
    run = reference.with_name(f"route of {route}")
    shutil.copytree(reference.with_name("fresh"), run)
    for index, (name, ranks) in enumerate(ROUTES[route]):
        for later in range(index * EVERY + 1, STEPS + 1):
            shutil.rmtree(run / f"training/step-{later:08d}", ignore_errors=True)
        done = train(run, ENGINES[name], ranks=ranks)
        assert done.returncode == 0, done.stderr
        assert not index or f"goes on from step {index * EVERY}" in done.stderr
        assert_same(run, reference)


@pytest.mark.parametrize("name", ENGINES)
def test_a_gradient_that_is_not_finite_updates_nothing(
    reference: Path, tmp_path: Path, name: str
) -> None:
    settings = [f"shards.path={reference.parent / 'shards'}", "training.distributions=4"]
    done = launch(
        2,
        "tests.distributed.gradient_program",
        str(tmp_path),
        *settings,
        options=ENGINES[name],
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for rank in range(2):
        facts = json.loads((tmp_path / f"{rank}.json").read_text())
        assert facts["kept"], rank
        assert facts["told"].startswith("total "), rank


def test_bfloat16_is_the_same_under_zero(reference: Path) -> None:
    whole, shared = fresh(reference, "bf16"), fresh(reference, "bf16 zero2")
    for run, engine in ((whole, DATA_PARALLEL), (shared, ENGINES["zero2"])):
        done = train(run, engine, "training.precision=bf16")
        assert done.returncode == 0, done.stderr
    expected = losses(whole)
    assert {s: pytest.approx(expected[s], rel=2**-8) for s in expected} == losses(shared)
    assert expected != losses(reference)


def test_what_zero_trained_loads_without_deepspeed(zero3: Path) -> None:
    script = (
        "import sys; sys.modules['deepspeed'] = None; sys.modules['accelerate'] = None\n"
        "from sno_dist import ScoreNeuralOperator; import torch\n"
        f"operator = ScoreNeuralOperator.from_pretrained({str(zero3)!r})\n"
        "images = torch.randint(0, 256, (4, *operator.spec.shape), dtype=torch.uint8)\n"
        "print(operator.sample(operator.embed(images), 2, steps=2).shape)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "torch.Size([2, 1, 8, 16])" in done.stdout


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"gradient_clipping": 1.0}, "gradient_clipping against training.clip"),
        ({"bf16": {"enabled": True}}, "bf16 against training.precision"),
        ({"zero_optimization": {"stage": 0}}, "this ZeRO stage shares nothing"),
    ],
)
def test_numerics_in_a_deepspeed_file_are_refused(
    reference: Path, tmp_path: Path, settings: dict[str, object], told: str
) -> None:
    file = tmp_path / "deepspeed.json"
    file.write_text(json.dumps({"zero_optimization": {"stage": 2}} | settings))
    engine = ["--config_file", "launch/accelerate/deepspeed.yaml"]
    engine += ["--deepspeed_config_file", str(file)]
    done = train(fresh(reference, told.replace(" ", "_")), engine, ranks=1)
    assert done.returncode
    assert told in done.stderr


def test_passes_that_ranks_would_not_share_are_refused(reference: Path) -> None:
    settings = ("training.distributions=5", "training.micro=1")
    done = train(fresh(reference, "passes"), FULLY_SHARDED, *settings)
    assert done.returncode
    assert "different numbers of passes" in done.stderr
    assert "take training.distributions as a multiple of 2" in done.stderr
