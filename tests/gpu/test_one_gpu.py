"""Training and sampling on one GPU under each engine, on NCCL, beside the same on the CPU."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.distributed.launch import launch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]

ZERO = ["--config_file", "launch/accelerate/deepspeed.yaml", "--deepspeed_config_file"]
ENGINES: dict[str, Sequence[str]] = {
    "alone": ["--config_file", "launch/accelerate/one_gpu.yaml"],
    "data parallel": ["--config_file", "launch/accelerate/one_machine.yaml"],
    **{
        name: [*ZERO, f"launch/deepspeed/{name}.json"]
        for name in ("zero1", "zero2", "zero2_offload", "zero3")
    },
    "fully sharded": ["--config_file", "launch/accelerate/fsdp2.yaml"],
}
CASES = [
    *((engine, "bf16") for engine in ENGINES),
    *((engine, "fp16") for engine in ("alone", "data parallel")),
]

LATTICE = [
    "shards.source={kind: gaussian_mixture, seen: 12, unseen: 3, model: 80, reference: 10}",
    "embedding={kind: kme, kernel: {kind: gaussian, bandwidth: 0.3}, components: 8}",
    "model={autoencoder: {kind: identity}, network: {kind: nomad}, likelihood: gaussian}",
    "judge=null",
]
FORMS = {
    form: [f"embedding.form.kind={form}"] for form in ("exact", "fourier", "random", "nystrom")
}
FORMS["eigen"] = ["embedding.kernel={kind: heat, order: 12}", "embedding.form.kind=eigen"]


def run(folder: Path, engine: str, precision: str, **env: str) -> list[dict[str, float]]:
    """All stages, on shards that all cases share; the log of training."""
    own = folder / f"{engine} {precision} {len(env)}"
    words = ["-c", "configs/smoke.yaml", f"run={own}", f"shards.path={folder / 'shards'}"]
    words += [f"training.precision={precision}", "training.log_every=1"]
    # `launch` hides GPUs unless it is told which there are
    place = {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0"), **env}
    done = launch(1, "sno_dist", "run", *words, options=ENGINES[engine], env=place, timeout=500)
    assert done.returncode == 0, done.stderr
    assert ("on cuda" in done.stderr + done.stdout) == bool(place["CUDA_VISIBLE_DEVICES"])
    summary = json.loads((own / "evaluation/summary.json").read_text())
    assert math.isfinite(summary["unseen"]["frechet"])
    rows = map(json.loads, (own / "logs/rank-00000.jsonl").read_text().splitlines())
    return [row for row in rows if "loss/total" in row]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gpu")


@pytest.fixture(scope="module")
def reference(folder: Path) -> list[dict[str, float]]:
    """On the CPU, in float32."""
    return run(folder, "data parallel", "fp32", CUDA_VISIBLE_DEVICES="")


@pytest.mark.parametrize(("engine", "precision"), CASES)
def test_an_engine_computes_what_a_cpu_does(
    folder: Path, reference: list[dict[str, float]], engine: str, precision: str
) -> None:
    found = run(folder, engine, precision)
    assert [row["step"] for row in found] == [row["step"] for row in reference]
    first, last = found[0]["loss/total"], found[-1]["loss/total"]
    # the first step has the same weights and noise; later ones drift apart
    assert first == pytest.approx(reference[0]["loss/total"], rel=0.01)
    assert last == pytest.approx(reference[-1]["loss/total"], rel=0.15)


@pytest.mark.parametrize("form", FORMS)
def test_a_kernel_mean_embedding_is_that_of_a_cpu(folder: Path, form: str) -> None:
    tables = []
    for devices in (os.environ.get("CUDA_VISIBLE_DEVICES", "0"), ""):
        own = folder / f"{form} on {devices or 'cpu'}"
        words = [*LATTICE, *FORMS[form], f"run={own}", f"shards.path={folder / 'lattice'}"]
        for stage in ("build-shards", "fit-embedding"):
            done = launch(1, "sno_dist", stage, *words, env={"CUDA_VISIBLE_DEVICES": devices})
            assert done.returncode == 0, done.stderr
        tables.append(load_file(own / "embedding/fitted.safetensors")["table"])
    torch.testing.assert_close(*tables, rtol=1e-4, atol=1e-4)


def test_overflows_of_fp16_are_counted(folder: Path) -> None:
    found = run(folder, "alone", "fp16")
    # the scale begins far above what 16 bits can hold
    assert 0 < sum(row["optimizer/overflows"] for row in found) < len(found) / 2
