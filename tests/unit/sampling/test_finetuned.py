"""Fine-tuning: where it begins, and whose law it comes to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sno_dist.sampling.finetuned import FinetunedModels
from sno_dist.sampling.plan import Unit
from sno_dist.score.of_one import ScoreOfOne
from sno_dist.shards.build import build_shards
from sno_dist.shards.manifest import Manifest
from sno_dist.shards.reader import Reader
from tests.unit.sampling.gaussians import LAWS, gaussians_config, untrained

CONDITIONAL = "embedding={kind: conditional, features: 3}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("population")


@pytest.fixture(scope="module")
def manifest(root: Path) -> Manifest:
    return build_shards(gaussians_config(root))


@pytest.mark.parametrize("embedding", ["embedding={kind: prototype}", CONDITIONAL])
def test_it_begins_with_the_operator(root: Path, manifest: Manifest, embedding: str) -> None:
    config = gaussians_config(root, embedding, "model.base=none")
    operator, reader = untrained(config, manifest), Reader(manifest)
    (entry,) = manifest.split("unseen")[:1]
    found = FinetunedModels(operator, reader, config)._begin(entry, None)
    if operator.embeds:
        exact = operator.embed(torch.from_numpy(reader.all(entry, "model")))
    else:
        exact = operator.embedder.rows(torch.arange(len(operator.spec.seen)))
        assert exact is not None
        exact = exact.mean(0)
    torch.testing.assert_close(found, exact)
    x, t = torch.randn(5, 2, generator=torch.Generator().manual_seed(0)), torch.full((5,), 0.3)
    score, plain = ScoreOfOne(operator.score_model, found), operator.score(found, x, t)
    torch.testing.assert_close(score.score(x.new_zeros(5, 1), x, t), plain)
    # a copy: what is trained on is not the operator
    assert not {id(p) for p in score.parameters()} & {id(p) for p in operator.parameters()}


@pytest.mark.parametrize("embedding", ["embedding={kind: prototype}", CONDITIONAL])
def test_samples_come_to_be_of_the_set_s_law(
    root: Path, manifest: Manifest, embedding: str
) -> None:
    own = "sampling.finetuned={steps: 400, batch: 128, learning_rate: 0.01}"
    config = gaussians_config(root, embedding, own, "sampling.samples=500")
    operator = untrained(config, manifest)
    entries = manifest.split("unseen")
    unit = Unit(split="unseen", k=None, entries=entries, method="finetuned")
    samples = FinetunedModels(operator, Reader(manifest), config)(unit)
    assert samples is not None
    for entry, found in zip(entries, samples, strict=True):
        mean, deviation = (np.array(moment) for moment in LAWS[entry.name])
        assert np.abs((found.mean(0) - mean) / deviation).max() < 0.25, entry.name
        np.testing.assert_allclose(found.std(0), deviation, rtol=0.25)


def test_of_one_sample_it_learns_that_sample(root: Path, manifest: Manifest) -> None:
    own = "sampling.finetuned={steps: 400, batch: 64, learning_rate: 0.01}"
    config = gaussians_config(root, own, "sampling.samples=200")
    operator, reader = untrained(config, manifest), Reader(manifest)
    (entry,) = manifest.split("unseen")[:1]
    models = FinetunedModels(operator, reader, config)
    samples = models(Unit(split="unseen", k=1, entries=[entry], method="finetuned"))
    assert samples is not None
    one = reader.take(entry, "model", models._index(entry, 1))[0]
    spread = np.array(LAWS[entry.name][1])
    # what fine-tuning on one sample comes to: the sample again
    assert np.abs(samples[0].mean(0) - one).max() < 0.3 * spread.max()
    assert (samples[0].std(0) < 0.5 * spread.max()).all()
