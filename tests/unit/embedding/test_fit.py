"""Fitting on a small lattice: every form, what it leaves, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sno_dist.config.load import load_config
from sno_dist.config.schema import Config
from sno_dist.embedding.features import Sums
from sno_dist.embedding.fit import fit_embedding
from sno_dist.embedding.table import open_table
from sno_dist.errors import ConfigError, DataError
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.shards.build import build_shards
from sno_dist.shards.manifest import Manifest, open_manifest
from sno_dist.shards.reader import Reader
from sno_dist.training.untrained import untrained_operator

FORMS = {
    "exact": ["embedding.samples=60"],
    "fourier": ["embedding.form.kind=fourier", "embedding.samples=60"],
    "random": ["embedding.form.kind=random", "embedding.samples=60"],
    "nystrom": ["embedding.form.kind=nystrom", "embedding.samples=60"],
    # waves damped as those of the Gaussian kernel of bandwidth .3 are
    "eigen": [
        "embedding.kernel={kind: heat, order: 18, heat: 0.0225}",
        "embedding.form.kind=eigen",
        "embedding.samples=60",
    ],
}


def lattice(root: Path, *overrides: str) -> Config:
    return load_config(
        None,
        [
            f"shards.path={root}/shards",
            f"run={root}/run",
            "shards.source.kind=gaussian_mixture",
            "shards.source.seen=12",
            "shards.source.unseen=3",
            "shards.source.model=80",
            "shards.source.reference=10",
            "embedding.kind=kme",
            "embedding.kernel.bandwidth=0.3",
            "embedding.components=8",
            "model.autoencoder.kind=identity",
            "model.network.kind=nomad",
            "model.network.width=16",
            "model.network.depth=1",
            "model.likelihood=gaussian",
            "judge=null",
            *overrides,
        ],
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lattice")
    build_shards(lattice(folder))
    return folder


def manifest_of(root: Path) -> Manifest:
    return open_manifest(lattice(root))


def fitted(root: Path, run: Path, *overrides: str) -> tuple[Config, dict[str, torch.Tensor]]:
    config = lattice(root, f"run={run}", *overrides)
    return config, dict(fit_embedding(config, manifest_of(root)).tensors)


@pytest.mark.parametrize("form", ["fourier", "nystrom", "eigen"])
def test_accurate_forms_give_the_exact_embedding(root: Path, tmp_path: Path, form: str) -> None:
    _, exact = fitted(root, tmp_path / "exact", *FORMS["exact"])
    _, other = fitted(root, tmp_path / form, *FORMS[form])
    gap = torch.cdist(exact["table"], exact["table"]) - torch.cdist(other["table"], other["table"])
    assert float(gap.abs().max()) < 2e-3


@pytest.mark.parametrize("form", FORMS)
def test_an_operator_embeds_with_what_was_fitted(root: Path, tmp_path: Path, form: str) -> None:
    config, tensors = fitted(root, tmp_path / "run", *FORMS[form])
    manifest = manifest_of(root)
    seen = manifest.split("seen")
    operator = untrained_operator(config, manifest, tensors)
    samples = torch.from_numpy(Reader(manifest).all(seen[4], "model"))
    # what the fit saw of a distribution gives the row that the fit gave it
    row = operator.seen_embedding(seen[4].name)
    torch.testing.assert_close(operator.embed(samples[:60]), row, rtol=0, atol=1e-4)
    operator.save_pretrained(tmp_path / "saved")
    again = ScoreNeuralOperator.from_pretrained(tmp_path / "saved")
    for context in (samples, samples[:1]):
        assert torch.equal(again.embed(context), operator.embed(context))
    parts = torch.tensor([30, 50])
    sums = operator.embed_sums(samples, parts)
    torch.testing.assert_close(
        operator.read_out(Sums(total=sums.total.sum(0)[None], count=torch.tensor([80.0])))[0],
        operator.embed(samples),
        rtol=0,
        atol=1e-5,
    )


def test_the_report_tells_of_spectrum_and_error(root: Path, tmp_path: Path) -> None:
    config, _ = fitted(root, tmp_path / "run", *FORMS["fourier"])
    report = json.loads((tmp_path / "run/embedding/report.json").read_text())
    assert report["components"] == 8
    assert report["samples"] == 12 * 60
    assert report["gram_error"] < 1e-6 < report["gram_largest"]
    assert report["eigenvalues"] == sorted(report["eigenvalues"], reverse=True)
    assert 0 < report["kept"] < 1
    # (1 - |mu|^2) / n, and |mu|^2 is near the largest entry for every law
    assert (1 - report["gram_largest"]) / 60 < report["noise"] < (1 - 0.1) / 60
    sums = load_file(tmp_path / "run/embedding/sums.safetensors")
    assert sums["total"].shape == (12, report["features"])
    assert not list((tmp_path / "run/embedding").glob(".*"))
    assert open_table(config, open_manifest(config)).tensors["table"].shape == (12, 8)


def test_a_bandwidth_left_to_the_data_is_the_median_distance(root: Path, tmp_path: Path) -> None:
    _, tensors = fitted(root, tmp_path / "run", "embedding.kernel.bandwidth=null")
    assert 1.5 < float(tensors["median"]) < 2.1  # of points of unit variance in two dimensions


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["embedding.form.kind=fourier", "embedding.kernel.kind=matern"], "Gaussian kernel"),
        (["embedding.form.kind=random", "embedding.kernel.kind=laplace"], "radial kernel"),
        (["embedding.form.kind=eigen"], "heat kernel"),
        (
            ["embedding.form.kind=eigen", "embedding.kernel={kind: heat, order: 200}"],
            "too many eigenfunctions",
        ),
        (
            ["embedding.form.kind=exact", "embedding.kernel={kind: heat, period: 1}"],
            "takes its ends for one .* got: 1 for samples spread over 3",
        ),
    ],
)
def test_forms_that_do_not_go_with_the_kernel(
    root: Path, tmp_path: Path, overrides: list[str], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        fitted(root, tmp_path / "run", *overrides)


def arrays(root: Path, *overrides: str, dims: int, noise: float) -> Config:
    """A population of four Gaussians as a user's own arrays."""
    (root / "data").mkdir()
    for name in "abcd":
        values = noise * np.random.default_rng(0).normal(size=(20, dims))
        np.save(root / f"data/{name}.npy", values.astype(np.float32))
    return load_config(
        None,
        [
            f"shards.path={root}/shards",
            f"run={root}/run",
            "shards.source.kind=folder",
            f"shards.source.path={root}/data",
            "embedding.kind=kme",
            *overrides,
        ],
    )


def test_quadrature_is_refused_in_many_dimensions(tmp_path: Path) -> None:
    config = arrays(tmp_path, "embedding.form.kind=fourier", dims=4, noise=1.0)
    with pytest.raises(ConfigError, match="4 dimensions"):
        fit_embedding(config, build_shards(config))


def test_samples_that_do_not_differ_have_no_median_distance(tmp_path: Path) -> None:
    config = arrays(tmp_path, dims=2, noise=0.0)
    with pytest.raises(DataError, match="no bandwidth"):
        fit_embedding(config, build_shards(config))
