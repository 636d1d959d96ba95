"""The operator: what its parts promise each other, and what its users meet."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from sno_dist import ScoreNeuralOperator
from sno_dist.config import schema
from sno_dist.errors import ArtifactError, ConfigError, DataError, RunError
from sno_dist.model.batch import Batch
from sno_dist.model.build import OperatorSpec
from sno_dist.model.joint import training_embedding
from sno_dist.model.latent import latent_sums
from sno_dist.score.guidance import guided
from sno_dist.score.scorenet import ScoreNet

NETWORKS: list[schema.Network] = [
    schema.TokenOperator(width=32, hidden=32, blocks=2),
    schema.Nomad(kind="nomad", width=16, depth=2),
    schema.Nomad(kind="nomad", width=16, depth=1, branch="linear"),
    schema.Nomad(kind="nomad", width=16, depth=1, branch="linear", join="product", detail=0.5),
    schema.MixtureHead(kind="mixture", terms=5, width=16, depth=1),
    schema.ScoreNet(kind="scorenet", width=32, levels=2),
]
EMBEDDINGS: list[schema.Embedding] = [
    schema.SetEncoder(width=16, blocks=1, features=4),
    schema.SetEncoder(width=16, blocks=1, features=4, attention=0),
    schema.Prototype(kind="prototype"),
    schema.Conditional(kind="conditional", features=6),
]
AUTOENCODERS: list[schema.Autoencoder] = [
    schema.ConvAutoencoder(channels=2, width=8, halvings=2),
    schema.MlpAutoencoder(kind="mlp", latent=6, width=16, depth=1),
    schema.IdentityAutoencoder(kind="identity"),
]


def make(
    network: schema.Network = NETWORKS[0],
    embedding: schema.Embedding = EMBEDDINGS[0],
    autoencoder: schema.Autoencoder = AUTOENCODERS[0],
    **model: object,
) -> ScoreNeuralOperator:
    torch.manual_seed(0)
    return ScoreNeuralOperator(
        OperatorSpec(
            model=schema.Model(autoencoder=autoencoder, network=network, **model),  # pyright: ignore
            embedding=embedding,
            domain="image",
            shape=(1, 8, 16),
            shift=(0.0,),
            scale=(255.0,),
            seen=("a", "b", "c"),
        )
    )


def make_batch(operator: ScoreNeuralOperator, targets: int = 4) -> Batch:
    source = torch.Generator().manual_seed(1)
    dims, lengths = operator.autoencoder.size, torch.tensor([1, 5, 2])

    def pixels(*shape: int) -> torch.Tensor:
        return torch.randint(0, 256, (*shape, 1, 8, 16), generator=source, dtype=torch.uint8)

    return Batch(
        context=pixels(8),
        lengths=lengths,
        rows=torch.arange(3),
        targets=pixels(3, targets),
        references=pixels(3, 0),
        times=torch.rand(3, targets, generator=source),
        noise=torch.randn(3, targets, dims, generator=source),
        posterior=torch.randn(3, targets, dims, generator=source),
        null=torch.rand(3, targets, generator=source) < 0.3,
    )


def wake(operator: ScoreNeuralOperator) -> ScoreNeuralOperator:
    """Zero-initialised layers hide what flows through them."""
    source = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in operator.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=source))
    return operator.eval()


@pytest.mark.parametrize(
    ("network", "embedding", "autoencoder"), list(product(NETWORKS, EMBEDDINGS, AUTOENCODERS))
)
def test_every_parameter_is_in_the_loss(
    network: schema.Network, embedding: schema.Embedding, autoencoder: schema.Autoencoder
) -> None:
    # data parallelism hangs on a parameter that a step leaves out
    operator = make(network, embedding, autoencoder)
    operator(make_batch(operator), schema.Objective(), 0.1)["total"].backward()
    assert [n for n, p in operator.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("matching", ["implicit", "sliced", "generalised"])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.kind)
def test_a_score_is_trained_without_the_noise(network: schema.Network, matching: str) -> None:
    operator = wake(make(network, EMBEDDINGS[2], AUTOENCODERS[2]))
    objective = schema.Objective(matching=matching)  # pyright: ignore[reportArgumentType]
    loss = operator(make_batch(operator), objective, 0.1)["score"]
    loss.backward()
    found = [p.grad for p in operator.score_model.parameters()]
    assert loss.isfinite()
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in found)
    assert any(bool(gradient.any()) for gradient in found if gradient is not None)


@pytest.mark.parametrize(
    ("base", "matching"), [("none", "denoising"), ("gaussian", "denoising"), ("none", "sliced")]
)
def test_micro_batches_add_up_to_the_whole(base: str, matching: str) -> None:
    operator = wake(make(base=base))
    batch = make_batch(operator)
    objective = schema.Objective(matching=matching)  # pyright: ignore[reportArgumentType]
    whole = operator(batch, objective, 0.1)
    parts = [operator(batch.part(i, i + 1), objective, 0.1) for i in range(3)]
    for name in ("total", "reconstruction", "kl", "score"):
        mean = torch.stack([part[name] for part in parts]).mean()
        torch.testing.assert_close(mean, whole[name], rtol=1e-5, atol=1e-5)
    total = torch.stack([part["latent"] for part in parts]).sum(0)
    assert total.shape == (operator.latent_entries,)
    torch.testing.assert_close(total, whole["latent"], rtol=1e-5, atol=1e-5)


def test_references_that_are_the_target_itself_change_nothing() -> None:
    operator = wake(make(autoencoder=schema.IdentityAutoencoder(kind="identity")))
    batch = make_batch(operator, targets=1)
    # so much noise that a sample may have come from any other
    batch = replace(batch, times=torch.full_like(batch.times, 0.99))
    plain = operator(batch, schema.Objective(), 0.1)["score"]
    again = replace(batch, references=batch.targets.expand(-1, 6, -1, -1, -1))
    torch.testing.assert_close(operator(again, schema.Objective(), 0.1)["score"], plain)
    others = replace(batch, references=batch.targets.flip(0).expand(-1, 6, -1, -1, -1))
    assert not torch.allclose(operator(others, schema.Objective(), 0.1)["score"], plain)


@pytest.mark.parametrize(("share", "flows"), [(0.0, False), (0.5, True), (1.0, True)])
def test_how_much_of_the_score_reaches_the_autoencoder(share: float, flows: bool) -> None:
    operator = wake(make())
    operator(make_batch(operator), schema.Objective(score_gradient=share), 0.1)["score"].backward()
    found = [
        p.grad is not None and bool(p.grad.any()) for p in operator.autoencoder.encoder.parameters()
    ]
    assert any(found) == flows


@pytest.mark.parametrize("base", ["none", "gaussian"])
@pytest.mark.parametrize("embedding", EMBEDDINGS[:3])
def test_embedding_is_a_mean_of_features(embedding: schema.Embedding, base: str) -> None:
    operator = wake(make(embedding=embedding, base=base))
    context = make_batch(operator).context
    whole = operator.embed(context)
    shuffled = operator.embed(context.flip(0))
    torch.testing.assert_close(shuffled, whole, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(operator.embed(context, chunk=3), whole, rtol=1e-5, atol=1e-5)
    # sums of two shards add up to the sums of both
    one, two = (
        operator.embed_sums(part, torch.tensor([len(part)])) for part in context.split([3, 5])
    )
    merged = operator.read_out(one + two)[0]
    torch.testing.assert_close(merged, whole, rtol=1e-5, atol=1e-5)
    # samples can be taken back
    first = operator.read_out(one + two - two)[0]
    torch.testing.assert_close(first, operator.embed(context[:3]), rtol=1e-4, atol=1e-4)
    # the batched form that training uses is the same
    batch = replace(make_batch(operator), lengths=torch.tensor([3, 5]))
    batched = training_embedding(operator, batch, 0.0)
    torch.testing.assert_close(batched[0], operator.embed(context[:3]), rtol=1e-5, atol=1e-5)


def test_an_autoencoder_at_rest_has_no_gradient_and_changes_no_other() -> None:
    operator = wake(make())
    batch, objective = make_batch(operator), schema.Objective()

    def gradients(at_rest: bool) -> dict[str, torch.Tensor]:
        operator.zero_grad()
        losses = operator(batch, objective, 0.1, at_rest=at_rest)
        losses["total"].backward()
        found = {n: p.grad.clone() for n, p in operator.named_parameters() if p.grad is not None}
        return {"total": losses["total"].detach(), **found}

    moving, resting = gradients(False), gradients(True)
    # engines wait for a gradient of every weight
    assert moving.keys() == resting.keys() == {"total", *dict(operator.named_parameters())}
    for name, own in resting.items():
        expected = torch.zeros_like(own) if name.startswith("autoencoder.") else moving[name]
        torch.testing.assert_close(own, expected)
    assert all(moving[n].any() for n in moving if n.startswith("autoencoder.decoder"))


def test_a_set_twice_is_the_set_and_attention_is_no_plain_mean() -> None:
    operator = wake(make())
    context = make_batch(operator).context
    u = operator.embed(context)
    twice = operator.embed(torch.cat([context, context]))
    torch.testing.assert_close(twice, u, rtol=1e-5, atol=1e-5)
    assert operator.embedder.query is not None
    with torch.no_grad():
        operator.embedder.query.weight.zero_()  # all members weigh alike
    assert float((operator.embed(context) - u).abs().max()) > 1e-3


def test_arrays_of_any_byte_order_and_stride_are_taken() -> None:
    operator = wake(make())
    x = np.random.default_rng(0).integers(0, 256, (6, 1, 8, 16))
    u = operator.embed(torch.from_numpy(x.astype(np.uint8)))
    for given in (x.astype(">f8"), x[::-1], x.astype(np.float16), x.tolist()):
        torch.testing.assert_close(operator.embed(given), u, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (torch.rand(3, 1, 8, 16), r"images whose values end at 1.*expected: 0 to 255"),
        (np.full((3, 1, 8, 16), 1e300), "not finite as float32"),
    ],
)
def test_images_of_another_range_are_refused(images: torch.Tensor, words: str) -> None:
    with pytest.raises(DataError, match=words):
        wake(make()).embed(images)


def test_guidance_that_training_had_nothing_to_learn_from_is_refused() -> None:
    operator = make()
    operator.spec = operator.spec.model_copy(update={"guidable": False})
    u = operator.unknown.detach()
    assert len(operator.sample(u, 2, steps=2)) == 2
    with pytest.raises(ConfigError, match=r"null embedding that was trained.*got: 1\.5"):
        operator.sample(u, 2, steps=2, guidance=1.5)


@pytest.mark.parametrize("base", ["none", "gaussian"])
def test_guidance(base: str) -> None:
    operator = wake(make(base=base))
    u = operator.embed(make_batch(operator).context)
    plain = operator.sample(u, 3, steps=4)
    assert plain.shape == (3, 1, 8, 16)
    assert plain.dtype == torch.uint8
    torch.testing.assert_close(operator.sample(u, 3, steps=4, guidance=1.0), plain)
    free = operator.sample(operator.unknown.detach(), 3, steps=4)
    torch.testing.assert_close(operator.sample(u, 3, steps=4, guidance=0.0), free)


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0, 1.5, 3.0])
def test_a_guided_score_is_as_far_beyond_the_free_one_as_asked(weight: float) -> None:
    operator = wake(make())
    u = operator.embed(make_batch(operator).context).expand(3, -1)
    z, t = torch.randn(3, operator.autoencoder.size), torch.tensor([0.1, 0.5, 0.9])
    with torch.no_grad():
        given, free = (operator.score(own, z, t) for own in (u, operator.null))
        found = guided(operator.score_model, u, operator.unknown, weight)(z, t)
    assert not torch.allclose(given, free, rtol=0.1)
    torch.testing.assert_close(found, free + weight * (given - free))


def test_a_seed_gives_the_same_samples_again_and_another_gives_others() -> None:
    operator = wake(make())
    u = operator.embed(make_batch(operator).context)
    first = operator.sample(u, 3, steps=2)
    assert torch.equal(operator.sample(u, 3, steps=2, seed=0), first)
    assert not torch.equal(operator.sample(u, 3, steps=2, seed=1), first)


def test_what_is_not_finite_becomes_no_image() -> None:
    operator = wake(make())
    z = torch.zeros(3, operator.autoencoder.size)
    z[1, 2] = torch.nan
    with pytest.raises(RunError, match="latents that are not finite .*got: 1 of 3"):
        operator.decode(z)


def test_latent_statistics_standardise() -> None:
    operator = make()
    latents = 3 + 2 * torch.randn(5000, 16, generator=torch.Generator().manual_seed(0)).double()
    for _ in range(3):
        operator.update_latent(latent_sums(latents[:, None], products=False), 5000, 1)
    torch.testing.assert_close(operator.latent_mean, latents.mean(0).float(), rtol=1e-4, atol=1e-4)
    deviation = latents.std(0, correction=0).float()
    torch.testing.assert_close(operator.latent_deviation, deviation, rtol=1e-4, atol=1e-4)


def test_density_of_vectors_integrates_to_one() -> None:
    torch.manual_seed(0)
    spec = OperatorSpec(
        model=schema.Model(autoencoder=AUTOENCODERS[2], network=NETWORKS[1], likelihood="gaussian"),
        embedding=schema.Prototype(kind="prototype"),
        domain="vector",
        shape=(1,),
        shift=(2.0,),
        scale=(3.0,),
        seen=("a",),
    )
    operator = wake(ScoreNeuralOperator(spec)).double()
    grid = torch.linspace(-28, 32, 801).double()[:, None]
    u = operator.embed(torch.tensor([[1.0], [2.5]]))
    density = operator.log_prob(u, grid, tolerance=1e-6).exp()
    assert float(torch.trapezoid(density, grid[:, 0])) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_save_and_load(tmp_path: Path, embedding: schema.Embedding) -> None:
    operator = wake(make(embedding=embedding))
    operator.save_pretrained(tmp_path)
    loaded = ScoreNeuralOperator.from_pretrained(tmp_path)
    assert loaded.spec == operator.spec
    for (name, a), (_, b) in zip(
        operator.state_dict().items(), loaded.state_dict().items(), strict=True
    ):
        assert torch.equal(a, b), name


def test_loading_nothing_or_something_damaged(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no trained operator here"):
        ScoreNeuralOperator.from_pretrained(tmp_path)
    make().save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ArtifactError, match="no trained operator here"):
        ScoreNeuralOperator.from_pretrained(path)
    with pytest.raises(ArtifactError, match="files are damaged"):
        ScoreNeuralOperator.from_pretrained(tmp_path)
    make(network=NETWORKS[1]).save_pretrained(tmp_path / "other")
    (tmp_path / "other/model.safetensors").rename(path)
    with pytest.raises(ArtifactError, match="weights are not of its spec.*from one checkpoint"):
        ScoreNeuralOperator.from_pretrained(tmp_path)


def test_bad_samples() -> None:
    operator = make()
    with pytest.raises(DataError, match=r"wrong shape.*\(2, 1, 9, 16\).*\(K, 1, 8, 16\)"):
        operator.embed(torch.zeros(2, 1, 9, 16))
    with pytest.raises(DataError, match="K >= 1"):
        operator.embed(torch.zeros(0, 1, 8, 16))
    with pytest.raises(DataError, match="not finite"):
        operator.embed(torch.full((2, 1, 8, 16), float("nan")))


def test_a_conditional_model_says_what_it_cannot() -> None:
    operator = make(embedding=EMBEDDINGS[3])
    with pytest.raises(DataError, match="conditional model cannot embed.*embedding.kind"):
        operator.embed(make_batch(operator).context)
    assert operator.seen_embedding("b") is not None


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="does not fit the data.*divisible by 16"):
        make(autoencoder=schema.ConvAutoencoder(halvings=4))


@pytest.mark.parametrize("network", [NETWORKS[1], NETWORKS[-1]])
def test_noise_is_not_asked_of_a_network_that_is_narrower(network: schema.Network) -> None:
    pixels = AUTOENCODERS[2]
    with pytest.raises(ConfigError, match="network.width.*expected: 128 at least"):
        make(network=network, autoencoder=pixels, prediction="noise")
    wide = network.model_copy(update={"width": 128})
    make(network=wide, autoencoder=pixels, prediction="noise")
    make(network=network, autoencoder=pixels, prediction="edm")


def test_a_narrow_network_does_not_see_all_of_the_noise() -> None:
    torch.manual_seed(0)
    network = ScoreNet(16, 3, width=12, levels=1, deviation=10.0)
    unseen = torch.linalg.svd(network.down[0].value.weight).Vh[12:]
    u, x, c = torch.randn(4, 3), torch.randn(4, 16), torch.randn(4)
    assert (network(u, x + torch.randn(4, 16), c) - network(u, x, c)).abs().max() > 1e-2
    torch.testing.assert_close(network(u, x + unseen, c), network(u, x, c), rtol=0, atol=1e-5)
