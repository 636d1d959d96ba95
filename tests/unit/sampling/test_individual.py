"""One score model per distribution: many trained in one stack, each as if it were alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sno_dist.config import schema
from sno_dist.config.schema import Config
from sno_dist.diffusion.objective import times, weights
from sno_dist.errors import RunError
from sno_dist.model.build import make_network, make_schedule
from sno_dist.runtime import preemption
from sno_dist.sampling.individual import IndividualModels
from sno_dist.sampling.plan import Unit
from sno_dist.sampling.stack import ScoreStack
from sno_dist.score.preconditioned import PreconditionedScore
from sno_dist.shards.build import build_shards
from sno_dist.shards.manifest import Entry, Manifest
from sno_dist.shards.reader import Reader
from sno_dist.training.ema import Ema
from sno_dist.training.optim import learning_rates, set_rates
from tests.unit.model.test_operator import NETWORKS
from tests.unit.sampling.gaussians import LAWS, gaussians_config, untrained


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("population")


@pytest.fixture(scope="module")
def manifest(root: Path) -> Manifest:
    return build_shards(gaussians_config(root))


def drawn(config: Config, manifest: Manifest, entries: list[Entry]) -> NDArray[np.generic] | None:
    individual = IndividualModels(untrained(config, manifest), Reader(manifest), config)
    return individual(Unit(split="seen", k=None, entries=entries, method="individual"))


def test_samples_of_several_models_in_one_stack_are_of_their_own_laws(
    root: Path, manifest: Manifest
) -> None:
    individual = "sampling.individual={steps: 400, batch: 128, learning_rate: 0.01}"
    config = gaussians_config(root, individual, "sampling.samples=500")
    samples = drawn(config, manifest, list(manifest.entries))
    assert samples is not None
    assert (samples.shape, samples.dtype) == ((4, 500, 2), np.float32)
    for entry, own in zip(manifest.entries, samples, strict=True):
        mean, deviation = (np.array(moment) for moment in LAWS[entry.name])
        assert np.abs((own.mean(0) - mean) / deviation).max() < 0.25, entry.name
        np.testing.assert_allclose(own.std(0), deviation, rtol=0.25)


def test_a_model_does_not_depend_on_its_mates(root: Path, manifest: Manifest) -> None:
    config = gaussians_config(root)
    entries = list(manifest.entries)
    together = drawn(config, manifest, entries)
    parts = [drawn(config, manifest, part) for part in ([entries[2]], entries[:2], [entries[3]])]
    assert together is not None
    alone = np.concatenate([part for part in parts if part is not None])
    gap = np.abs(together[[2, 0, 1, 3]].astype(np.float32) - alone.astype(np.float32))
    assert gap.max() < 1e-4


def test_models_begin_and_go_on_differently(root: Path, manifest: Manifest) -> None:
    config = gaussians_config(root, "sampling.individual.steps=1")
    samples = drawn(config, manifest, list(manifest.entries))
    assert samples is not None
    assert len({own.tobytes() for own in samples}) == 4


def test_a_seed_gives_the_same_bits_again(root: Path, manifest: Manifest) -> None:
    first, again, other = (
        drawn(gaussians_config(root, f"seed={seed}"), manifest, manifest.split("unseen"))
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert np.abs(np.asarray(first) - np.asarray(other)).max() > 1e-3


def test_asked_to_stop(root: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = iter(range(100))
    monkeypatch.setattr(preemption, "requested", lambda: next(asked) == 5)
    assert drawn(gaussians_config(root), manifest, manifest.split("seen")) is None
    assert next(asked) == 6


def test_a_loss_that_is_not_finite_names_the_group(root: Path, manifest: Manifest) -> None:
    config = gaussians_config(root, "sampling.individual.learning_rate=1.0e+30")
    entries = manifest.split("seen")
    names = f"seen distributions {entries[0].name} to {entries[-1].name}"
    with pytest.raises(RunError, match=rf"not finite at step \d+ \| at: {names}"):
        drawn(config, manifest, entries)


STEPS = 10


def models(network: schema.Network) -> list[PreconditionedScore]:
    """Two, of the same initial weights at every call."""
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        module = make_network(schema.Model(network=network), (4, 2), (1, 1))
        made.append(PreconditionedScore(module, make_schedule(schema.Schedule()), "edm"))
    return made


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    source = torch.Generator().manual_seed(0)
    made = []
    for _ in range(count):
        normal = torch.randn(2, 2, 16, 8, generator=source)
        made.append((2 + 0.1 * normal[0], normal[1], torch.rand(2, 16, generator=source)))
    return made


def trained_alone(
    model: PreconditionedScore, training: schema.Training, index: int
) -> tuple[list[float], dict[str, torch.Tensor]]:
    """Losses and averaged weights of a plain loop with the operator's own parts."""
    optimizer = torch.optim.AdamW(
        model.parameters(), betas=(0.9, 0.99), weight_decay=training.weight_decay
    )
    ema, losses, objective = Ema(list(model.parameters()), training.ema), [], training.objective
    for step, batch in enumerate(batches(STEPS)):
        z, noise, uniform = (part[index] for part in batch)
        set_rates(optimizer, learning_rates(step, training))
        t = times(uniform, model.schedule, objective.times, objective.log_mean, objective.log_std)
        alpha, sigma = model.schedule.alpha(t)[:, None], model.schedule.sigma(t)[:, None]
        with torch.autocast("cpu", torch.bfloat16, enabled=training.precision == "bf16"):
            predicted = model(torch.zeros(16, 1), alpha * z + sigma * noise, t)
        miss = (predicted - noise).square().sum(1)
        loss = (weights(t, model.schedule, objective.weight) * miss).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), training.clip)
        optimizer.step()
        ema.update(list(model.parameters()), step)
        losses.append(loss.item())
    names = [name for name, _ in model.named_parameters()]
    return losses, dict(zip(names, ema.shadow, strict=True))


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.kind)
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_stack_does_what_a_plain_loop_does_with_each_model(
    network: schema.Network, precision: Any
) -> None:
    training = schema.Training(precision=precision, steps=STEPS, warmup=1, learning_rate=1e-2)
    stack = ScoreStack(
        models(network), training, schema.Individual(steps=STEPS, learning_rate=1e-2)
    )
    told = torch.stack([stack.step(step, *batch)[0] for step, batch in enumerate(batches(STEPS))])
    near = 0.02 if precision == "bf16" else 1e-3
    for index, model in enumerate(models(network)):
        losses, averages = trained_alone(model, training, index)
        assert told[:, index].tolist() == pytest.approx(losses, rel=near)
        state = stack.averaged(index).state_dict()
        gaps = torch.cat([(state[name] - value).flatten() for name, value in averages.items()])
        # where a gradient is rounding alone, Adam makes whole steps of it, either way
        assert float(gaps.abs().mean()) < (1e-3 if precision == "bf16" else 1e-5)


def test_a_short_training_reaches_its_learning_rate() -> None:
    own = schema.Individual(steps=20, learning_rate=1e-2)
    stack = ScoreStack(models(NETWORKS[0]), schema.Training(warmup=100), own)
    assert max(stack._rate(step) for step in range(20)) > 0.9e-2
