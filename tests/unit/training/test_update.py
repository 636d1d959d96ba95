"""What an update does to the weights, and what training is for: samples of the laws trained on."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from sno_dist import build_shards, fit_embedding, sample, train
from sno_dist.config.schema import Config
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime.accelerator import build_accelerator
from sno_dist.runtime.world import World
from sno_dist.training.engines.factory import make_engine
from sno_dist.training.loader import StepBatches
from sno_dist.training.optim import ClippedAdamW, learning_rates
from sno_dist.training.step import NotFiniteError, Stepper
from sno_dist.training.untrained import untrained_operator
from tests.unit.sampling.gaussians import LAWS, gaussians_config
from tests.unit.training.test_train import fresh_accelerator, go, shards, tiny

__all__ = ["fresh_accelerator", "shards"]  # fixtures


def initial(config: Config) -> ScoreNeuralOperator:
    torch.manual_seed(config.seed)
    return untrained_operator(config, build_shards(config))


def test_the_first_update_moves_each_group_by_its_rate(tmp_path: Path, shards: Path) -> None:
    """Adam's first step is the rate itself, in the direction of the gradient's sign."""
    settings = ("training.steps=1", "training.warmup=3", "training.autoencoder_rate=0.1")
    config = tiny(tmp_path, shards, *settings, "training.weight_decay=0")
    before = initial(config).state_dict()
    after = load_file(go(config).path / "raw.safetensors")
    moved = {
        prefix: max(
            float((after[name] - before[name]).abs().max())
            for name in before
            if name.startswith(prefix) and before[name].is_floating_point()
        )
        for prefix in ("score_model", "autoencoder")
    }
    rate, slow = learning_rates(0, config.training)
    assert (rate, slow) == pytest.approx((0.25 * 2e-3, 0.25 * 2e-4))
    assert moved == pytest.approx({"score_model": rate, "autoencoder": slow}, rel=1e-2)


def test_each_group_is_clipped_alone() -> None:
    large, small = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
    groups = [{"params": [large]}, {"params": [small]}]
    optimizer = ClippedAdamW(groups, clip=1.0, sharded=False, lr=1e-3, betas=(0.9, 0.99))
    large.grad, small.grad = torch.full((4,), 50.0), torch.full((4,), 0.25)
    optimizer.step()
    assert optimizer.norms == pytest.approx([100.0, 0.5])
    # the first moment is a tenth of the gradient that was let through
    found = [float(optimizer.state[p]["exp_avg"].norm()) for p in (large, small)]
    assert found == pytest.approx([0.1, 0.05])


def test_what_is_published_is_the_average_of_the_weights(tmp_path: Path, shards: Path) -> None:
    every = ("training.steps=4", "training.save_every=1", "training.keep=9", "training.ema=0.3")
    config = tiny(tmp_path, shards, *every)
    average = {name: value.detach() for name, value in initial(config).named_parameters()}
    last = go(config).path
    for step in range(4):
        raw = load_file(last.with_name(f"step-{step + 1:08d}") / "raw.safetensors")
        decay = min(0.3, (1 + step) / (10 + step))
        average = {n: decay * own + (1 - decay) * raw[n] for n, own in average.items()}
    published, raw = (load_file(last / f"{name}.safetensors") for name in ("model", "raw"))
    for name, value in average.items():
        torch.testing.assert_close(published[name], value, rtol=1e-5, atol=1e-7)
    assert any(not torch.equal(published[name], raw[name]) for name in average)


@pytest.mark.parametrize("spoilt", ["total", "latent"])
def test_a_loss_that_is_not_finite_updates_nothing(
    tmp_path: Path, shards: Path, spoilt: str
) -> None:
    config = tiny(tmp_path, shards)
    accelerator = build_accelerator(config.training.precision)
    operator = initial(config)
    engine = make_engine(accelerator, operator, config.training)
    stepper = Stepper(engine, config.training)
    data = StepBatches(config, build_shards(config), World(), operator.autoencoder.size)
    stepper(data[0], 0)

    def state() -> dict[str, Tensor]:
        return {name: t.clone() for name, t in {**engine.weights(), **engine.moments()}.items()}

    before, forward = state(), engine.wrapped

    def spoiling(*given: Any, **named: Any) -> dict[str, Tensor]:
        losses = forward(*given, **named)
        return {**losses, "total": losses["total"] * math.nan, spoilt: losses[spoilt] * math.nan}

    with (
        patch.object(engine, "wrapped", spoiling),
        pytest.raises(NotFiniteError, match="total nan"),
    ):
        stepper(data[1], 1)
    after = state()
    assert {"latent_mean", "latent_updates"} < before.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def drawn(config: Config) -> dict[str, NDArray[np.generic]]:
    """Samples of seen distributions from all their samples."""
    manifest = build_shards(config)
    checkpoint = train(config, manifest, fit_embedding(config, manifest))
    found = sample(config, manifest, checkpoint)
    return {e.name: found.samples(f"seen/all/{e.name}") for e in manifest.split("seen")}


def test_training_learns_the_laws_and_without_a_context_all_of_them_together(
    tmp_path: Path,
) -> None:
    settings = (
        "training.steps=1000",
        "training.context=[20,100]",
        "training.distributions=8",
        "training.learning_rate=0.01",
        "training.workers=0",
        "training.ema=0.99",
        "training.objective.drop=0.3",
        "sampling.samples=500",
        "sampling.batch=2000",
        "sampling.contexts=[]",
    )
    given = drawn(gaussians_config(tmp_path, *settings))
    assert len(given) == 3
    for name, own in given.items():
        mean, deviation = (np.array(moment) for moment in LAWS[name])
        assert np.abs((own.mean(0) - mean) / deviation).max() < 0.3, name
        low, high = np.quantile(own, [0.1587, 0.8413], axis=0)
        np.testing.assert_allclose((high - low) / 2, deviation, rtol=0.25, err_msg=name)
    free = drawn(
        gaussians_config(tmp_path, *settings, "sampling.guidance=0.0", f"run={tmp_path}/free")
    )
    pooled = np.concatenate(list(given.values()))
    for own in free.values():
        np.testing.assert_allclose(own.mean(0), pooled.mean(0), atol=0.25 * pooled.std(0).max())
        np.testing.assert_allclose(own.std(0), pooled.std(0), rtol=0.25)
