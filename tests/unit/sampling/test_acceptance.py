"""Acceptance: of the candidates of a context set, those that embed nearest to it are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sno_dist.errors import ConfigError, DataError
from sno_dist.model.acceptance import candidates
from sno_dist.sampling.draw import Drawer
from sno_dist.sampling.plan import Unit
from sno_dist.shards.build import build_shards
from sno_dist.shards.reader import reader_of
from tests.unit.sampling.gaussians import gaussians_config, untrained


def drawn(root: Path, k: int | None, *overrides: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Samples of two distributions, (2, n, 2), and a u of each, of few the second set's."""
    config = gaussians_config(root, *overrides)
    manifest = build_shards(config)
    reader, operator = reader_of(config, manifest), untrained(config, manifest)
    drawer = Drawer(operator, reader, config.sampling, config.seed)
    entries = manifest.split("seen")[:2]
    samples = drawer(Unit(split="seen", k=k, entries=entries), 1.0)
    u = torch.stack([drawer.embed(entry, k, 1 if k else 0) for entry in entries])
    return torch.from_numpy(samples), u


def distances(root: Path, samples: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """With prototypes in data space: u is a mean of standardised samples."""
    config = gaussians_config(root)
    operator = untrained(config, build_shards(config))
    return torch.linalg.vector_norm(operator.encode(samples) - u, dim=1)


@pytest.mark.parametrize("k", [None, 3])
def test_the_nearest_candidates_of_each_context_set_are_kept_in_order(
    tmp_path: Path, k: int | None
) -> None:
    kept, u = drawn(tmp_path, k, "sampling.acceptance=0.5")
    tried, _ = drawn(tmp_path, k, "sampling.samples=40", "sampling.per_context=10")
    assert kept.shape == (2, 20, 2)
    if k:  # the second of the context sets
        kept, tried = kept[:, 5:10], tried[:, 10:20]
    for own, every, centre in zip(kept, tried, u, strict=True):
        near = distances(tmp_path, every, centre).argsort()[: len(own)].sort().values
        assert not torch.equal(near, torch.arange(len(own)))
        torch.testing.assert_close(own, every[near])


def test_candidates_are_integrated_in_slices_of_the_batch(tmp_path: Path) -> None:
    own = {
        batch: drawn(tmp_path, 3, "sampling.acceptance=0.7", f"sampling.batch={batch}")[0]
        for batch in (9, 500)
    }
    torch.testing.assert_close(own[9], own[500], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("count", "acceptance", "tried"), [(100, 0.9, 111), (10, 0.95, 11)])
def test_the_kept_are_the_accepted_share(count: int, acceptance: float, tried: int) -> None:
    assert candidates(count, acceptance) == tried
    assert candidates(count, 1.0) == count


@pytest.mark.parametrize("acceptance", [0.0, -1.0, 1.5, float("nan")])
def test_acceptance_is_a_share(acceptance: float) -> None:
    with pytest.raises(ConfigError, match="acceptance is a share"):
        candidates(10, acceptance)


def test_an_operator_samples_by_acceptance(tmp_path: Path) -> None:
    config = gaussians_config(tmp_path)
    operator = untrained(config, build_shards(config))
    u = operator.embed(torch.zeros(4, 2))
    tried, kept = operator.sample(u, 40, steps=4), operator.sample(u, 10, steps=4, acceptance=0.25)
    near = torch.linalg.vector_norm(operator.encode(tried) - u, dim=1).argsort()[:10].sort().values
    torch.testing.assert_close(kept, tried[near])


def test_what_cannot_embed_cannot_tell_which_to_keep(tmp_path: Path) -> None:
    config = gaussians_config(tmp_path, "embedding={kind: conditional}")
    manifest = build_shards(config)
    operator = untrained(config, manifest)
    u = operator.seen_embedding(manifest.split("seen")[0].name)
    assert u is not None
    with pytest.raises(DataError, match="cannot embed"):
        operator.sample(u, 4, steps=2, acceptance=0.5)
