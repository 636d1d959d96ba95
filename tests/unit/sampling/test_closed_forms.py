"""Kernel models and operator-informed score matching as baselines: whose law they draw."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sno_dist.config.load import load_config
from sno_dist.config.schema import Config
from sno_dist.errors import ConfigError, RunError
from sno_dist.runtime.rng import generator, normals
from sno_dist.sampling.kernel import KernelModels
from sno_dist.sampling.latents import LatentSpace
from sno_dist.sampling.oism import OismModels
from sno_dist.sampling.plan import Method, Unit, context_of, groups_of
from sno_dist.shards.build import build_shards
from sno_dist.shards.manifest import Entry
from sno_dist.shards.reader import Reader
from tests.unit.sampling.gaussians import LAWS, arrays_config, gaussians_config, untrained

MODELS: dict[Method, type[KernelModels | OismModels]] = {"kernel": KernelModels, "oism": OismModels}
BOTH = pytest.mark.parametrize("method", ["kernel", "oism"])


class Population:
    """A population, an operator that was never trained, and what draws from both."""

    def __init__(self, config: Config) -> None:
        self.config, self.manifest = config, build_shards(config)
        self.reader, self.operator = Reader(self.manifest), untrained(config, self.manifest)

    def drawn(self, method: Method, entries: list[Entry], k: int | None) -> NDArray[np.float64]:
        model = MODELS[method](self.operator, self.reader, self.config)
        samples = model(Unit(split="seen", k=k, entries=entries, method=method))
        assert samples.dtype == np.float32
        return samples.astype(np.float64)

    def real(self, entry: Entry) -> NDArray[np.float64]:
        return self.reader.all(entry, "model").astype(np.float64)

    def within(self) -> NDArray[np.float64]:
        """The deviation within seen distributions, entry by entry."""
        rows = [self.real(entry) for entry in self.manifest.split("seen")]
        squares = sum(np.square(own - own.mean(0)).sum(0) for own in rows)
        return np.sqrt(squares / sum(len(own) - 1 for own in rows))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("population")


def gaussians(root: Path, *overrides: str) -> Population:
    return Population(gaussians_config(root, *overrides))


@BOTH
@pytest.mark.parametrize("k", [None, 100])
def test_samples_of_gaussians_have_their_moments(root: Path, method: Method, k: int | None) -> None:
    population = gaussians(root, "sampling={samples: 4000, per_context: 4000, steps: 24}")
    entries = list(population.manifest.entries)
    seed = population.config.seed
    for entry, own in zip(entries, population.drawn(method, entries, k), strict=True):
        context = population.real(entry)[context_of(seed, entry, k, 0)]
        deviation = np.array(LAWS[entry.name][1])
        assert np.abs((own.mean(0) - context.mean(0)) / deviation).max() < 0.15, entry.name
        gap = (np.cov(own.T) - np.cov(context.T)) / np.outer(deviation, deviation)
        assert np.abs(gap).max() < 0.3, entry.name


@BOTH
def test_one_sample_s_law_is_a_gaussian_of_twice_the_variance_within_distributions(
    root: Path, method: Method
) -> None:
    population = gaussians(root, "sampling={samples: 4000, per_context: 4000, steps: 40}")
    for entry in population.manifest.entries:
        (own,) = population.drawn(method, [entry], 1)
        context = population.real(entry)[context_of(population.config.seed, entry, 1, 0)]
        scaled = (own - context) / (np.sqrt(2) * population.within())
        # four standard errors, and what a solver of so many steps has
        assert np.abs(scaled.mean(0)).max() < 4 / np.sqrt(4000)
        np.testing.assert_allclose(np.cov(scaled.T), np.eye(2), atol=0.12)


@pytest.mark.parametrize("k", [2, 10])
def test_few_samples_law_is_a_gaussian_shrunk_to_the_variance_within_distributions(
    root: Path, k: int
) -> None:
    population = gaussians(root, "sampling={samples: 4000, per_context: 4000}")
    for entry in population.manifest.entries:
        (own,) = population.drawn("oism", [entry], k)
        context = population.real(entry)[context_of(population.config.seed, entry, k, 0)]
        gap = (context - context.mean(0)) / population.within()
        # as many samples' worth of the variance within as there are entries
        expected = (1 + 1 / k) * (gap.T @ gap + 2 * np.eye(2)) / (k + 1)
        scaled = (own - context.mean(0)) / population.within()
        factor = np.linalg.inv(np.linalg.cholesky(expected))
        np.testing.assert_allclose(factor @ np.cov(scaled.T) @ factor.T, np.eye(2), atol=0.1)


def test_each_sample_is_of_its_own_group_and_stream(root: Path) -> None:
    population = gaussians(root, "sampling={samples: 20, per_context: 6}")
    entries, seed = list(population.manifest.entries), population.config.seed
    groups = groups_of(population.config.sampling, 1)
    assert np.bincount(groups).tolist() == [6, 6, 6, 2]
    for entry, own in zip(entries, population.drawn("kernel", entries, 1), strict=True):
        streams = [generator(seed, "sample", entry.name, "kernel-k1", i) for i in range(20)]
        for stream in streams:
            stream.random()  # which component
        noise = np.sqrt(2) * population.within() * normals(streams, (2,))
        contexts = [context_of(seed, entry, 1, int(group)) for group in groups]
        centres = population.real(entry)[np.concatenate(contexts)]
        np.testing.assert_allclose(own, centres + noise, atol=1e-5)


@BOTH
@pytest.mark.parametrize("k", [None, 10, 100])
def test_what_is_drawn_does_not_depend_on_how_units_are_cut(
    root: Path, method: Method, k: int | None
) -> None:
    # a small set beside large ones, which are modelled in another way
    source = np.random.default_rng(1)
    sizes = {"a": 300, "b": 300, "few": 24 if k is None else 300}
    arrays = {name: source.normal(size=(size, 2)) for name, size in sizes.items()}
    own = root / f"cut-{k}"
    own.mkdir(exist_ok=True)
    population = Population(arrays_config(own, arrays))
    entries = list(population.manifest.entries)
    together = population.drawn(method, entries, k)
    parts = [population.drawn(method, part, k) for part in (entries[1:], entries[:1])]
    np.testing.assert_allclose(np.concatenate(parts)[[2, 0, 1]], together, atol=1e-4)
    np.testing.assert_array_equal(population.drawn(method, entries, k), together)
    assert len({samples.tobytes() for samples in together}) == 3


def clusters(root: Path, *overrides: str) -> Population:
    """A law of two clusters around (-3, 0) and (3, 0), and one that is a Gaussian."""
    source = np.random.default_rng(2)
    centres = np.array([[-3.0, 0.0], [3.0, 0.0]])[source.integers(2, size=400)]
    arrays = {
        "two": centres + 0.3 * source.normal(size=(400, 2)),
        "one": source.normal(size=(9, 2)),
    }
    samples = "sampling={samples: 1000, per_context: 1000, steps: 24}"
    return Population(arrays_config(root, arrays, samples, *overrides))


@pytest.mark.parametrize(
    ("method", "override", "low", "high"),
    [
        ("kernel", "sampling.kernel.form=full", 0.97, 1.0),
        ("kernel", "sampling.kernel.form=diagonal", 0.97, 1.0),
        ("kernel", "sampling.kernel={form: low_rank, rank: 1}", 0.97, 1.0),
        ("kernel", "sampling.kernel={method: likelihood, kernels: false}", 0.97, 1.0),
        ("kernel", "sampling.kernel={method: implicit, kernels: false}", 0.97, 1.0),
        ("oism", "sampling.oism.noising=torus", 0.95, 1.0),
        # a Gaussian of that variance: 2 (Phi(4.2 / s) - Phi(1.8 / s)) of it, s^2 = 9.09
        ("oism", "sampling.oism.noising=ou", 0.3, 0.5),
    ],
)
def test_clusters_are_kept_apart_by_what_can(
    tmp_path: Path, method: Method, override: str, low: float, high: float
) -> None:
    population = clusters(tmp_path, override)
    entry = next(e for e in population.manifest.entries if e.name == "two")
    (own,) = population.drawn(method, [entry], None)
    near = np.abs(np.abs(own[:, 0]) - 3) < 1.2
    assert low <= near.mean() <= high
    right = float((own[near, 0] > 0).mean())
    assert right == pytest.approx(float((population.real(entry)[:, 0] > 0).mean()), abs=0.06)


def test_samples_on_the_torus_stay_in_its_period(tmp_path: Path) -> None:
    population = clusters(tmp_path, "sampling.oism.shrinkage=none")
    entry = next(e for e in population.manifest.entries if e.name == "two")
    real, (own,) = population.real(entry), population.drawn("oism", [entry], None)
    factor = np.linalg.cholesky(np.cov(real.T))
    far = np.abs(np.linalg.solve(factor, (own - real.mean(0)).T)).max()
    assert far < 4.05  # half of 8 deviations, but for the pooled variance's part in them


def test_polynomials_that_run_off_are_told(tmp_path: Path) -> None:
    population = clusters(tmp_path, "sampling.oism={noising: ou, order: 8}")
    with pytest.raises(RunError, match=r"not finite .* do: choose sampling.oism.noising=torus"):
        population.drawn("oism", list(population.manifest.entries), None)


def test_a_set_beyond_the_largest_is_fitted_in_part(root: Path) -> None:
    population = gaussians(root, "sampling.kernel.largest=1", "sampling.samples=30")
    for entry in population.manifest.entries:
        (own,) = population.drawn("kernel", [entry], None)
        streams = [
            generator(population.config.seed, "sample", entry.name, "kernel-all", i)
            for i in range(30)
        ]
        for stream in streams:
            stream.random()
        centres = own - np.sqrt(2) * population.within() * normals(streams, (2,))
        np.testing.assert_allclose(centres, centres[:1].repeat(30, 0), atol=1e-5)
        assert np.abs(population.real(entry) - centres[0]).sum(1).min() < 1e-5


@BOTH
def test_large_latents_have_closed_forms_too(tmp_path: Path, method: Method) -> None:
    source = np.random.default_rng(0)
    deviation = source.uniform(0.5, 2, 128)
    arrays = {name: shift + source.normal(0, deviation, (120, 128)) for name, shift in
              (("a", 0.0), ("b", 5.0))}  # fmt: skip
    population = Population(arrays_config(tmp_path, arrays, "sampling.samples=400"))
    entries = list(population.manifest.entries)
    for entry, own in zip(entries, population.drawn(method, entries, None), strict=True):
        real = population.real(entry)
        gaps = (own.mean(0) - real.mean(0)) / deviation
        assert np.sqrt(np.square(gaps).mean()) < 0.15
        assert np.log(own.std(0) / real.std(0)).mean() == pytest.approx(0, abs=0.1)


# --------------------------------------------------------------------------- the latent


@pytest.mark.parametrize("transform", ["{kind: none}", "{kind: box, low: -30.0, high: 30.0}"])
def test_contexts_are_the_samples_themselves_where_there_is_no_autoencoder(
    tmp_path: Path, transform: str
) -> None:
    population = gaussians(tmp_path, f"model.transform={transform}")
    space = LatentSpace(population.operator, population.reader, population.config)
    entries, seed = list(population.manifest.entries), population.config.seed
    contexts = space.contexts(Unit(split="seen", k=10, entries=entries))
    assert len(contexts) == 4 * 4
    for place, own in enumerate(contexts):
        entry, group = entries[place // 4], place % 4
        rows = population.reader.take(entry, "model", context_of(seed, entry, 10, group))
        z = population.operator.encode(torch.from_numpy(rows)).double()
        torch.testing.assert_close(own * space.deviation, z)
        back = space.in_data(own[None])[0].astype(np.float64)
        np.testing.assert_allclose(back, rows.astype(np.float64), rtol=1e-5, atol=1e-5)


def test_contexts_are_draws_of_the_autoencoder_s_posteriors(tmp_path: Path) -> None:
    coder = "model.autoencoder={kind: mlp, latent: 3, width: 16, depth: 2}"
    population = Population(gaussians_config(tmp_path, coder))
    space = LatentSpace(population.operator, population.reader, population.config)
    entries = list(population.manifest.entries)
    draws = space.contexts(Unit(split="seen", k=None, entries=entries))
    gaps = []
    for entry, own in zip(entries, draws, strict=True):
        mean, deviation = space.posterior(entry, np.arange(entry.count("model")))
        gaps.append((own * space.deviation - mean) / deviation)
    gap = torch.cat(gaps).flatten()
    assert abs(float(gap.mean())) < 4 / len(gap) ** 0.5
    assert float(gap.var()) == pytest.approx(1, abs=4 * (2 / len(gap)) ** 0.5)


# ----------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("sampling.kernel={form: low_rank, rank: 2}", r"rank 2 in a latent of 2 entries"),
        (
            "sampling.kernel={form: full, largest: 20000000}",
            r"too much memory .* do: choose .*diag",
        ),
        (
            "sampling.oism.order=40",
            r"too many eigenfunctions .*at: sampling\.oism\.order .* of order 40 in 2 dimensions",
        ),
    ],
)
def test_what_does_not_fit_the_latent_is_refused(root: Path, override: str, words: str) -> None:
    population = gaussians(root, override)
    model = KernelModels if "kernel" in override else OismModels
    with pytest.raises(ConfigError, match=words):
        model(population.operator, population.reader, population.config)


@pytest.mark.parametrize(
    ("override", "where"),
    [
        ("sampling.baselines=[kernels]", "sampling.baselines.0"),
        ("sampling.kernel.per_centre=[]", "sampling.kernel.per_centre"),
        ("sampling.kernel.method=kde", "sampling.kernel.method"),
        ("sampling.oism.order=65", "sampling.oism.order"),
        ("sampling.oism.ridge=0", "sampling.oism.ridge"),
    ],
)
def test_settings_that_are_wrong_are_told(override: str, where: str) -> None:
    with pytest.raises(ConfigError, match=rf"a setting is wrong \| at: {where}"):
        load_config(None, [override])
