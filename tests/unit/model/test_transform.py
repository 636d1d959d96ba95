"""An operator over constrained samples: what it draws is inside, and its density is one there."""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from sno_dist import ScoreNeuralOperator
from sno_dist.config import schema
from sno_dist.config.schema import BoxTransform, SimplexTransform
from sno_dist.errors import ConfigError, DataError
from sno_dist.model.batch import Batch
from sno_dist.model.build import OperatorSpec

CHARTS = ("isometric", "additive")
BOX = BoxTransform(kind="box", low=(-1.0, 0.0), high=(2.0, 5.0))
NETWORK = schema.Nomad(kind="nomad", width=16, depth=2, fourier=1.0)


def simplex(chart: str) -> SimplexTransform:
    return SimplexTransform(kind="simplex", chart=chart)  # pyright: ignore[reportArgumentType]


def make(
    transform: SimplexTransform | BoxTransform,
    shape: tuple[int, ...],
    *,
    shift: tuple[float, ...] = (0.2, -0.3),
    scale: tuple[float, ...] = (0.7, 0.5),
    domain: str = "vector",
    **model: object,
) -> ScoreNeuralOperator:
    """An operator whose weights are initial ones."""
    torch.manual_seed(0)
    parts = {"autoencoder": schema.IdentityAutoencoder(kind="identity"), "likelihood": "gaussian"}
    spec = OperatorSpec(
        model=schema.Model(transform=transform, network=NETWORK, **{**parts, **model}),  # pyright: ignore
        embedding=schema.Prototype(kind="prototype"),
        domain=domain,  # pyright: ignore[reportArgumentType]
        shape=shape,
        shift=shift,
        scale=scale,
        seen=("a", "b"),
    )
    return ScoreNeuralOperator(spec).eval()


def normal(operator: ScoreNeuralOperator) -> ScoreNeuralOperator:
    """With a network that is 0: the preconditioned score is then that of standard normals."""
    with torch.no_grad():
        for parameter in operator.score_model.parameters():
            parameter.zero_()
    return operator.double()


def woken(operator: ScoreNeuralOperator) -> ScoreNeuralOperator:
    """With a network that bends the law."""
    source = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in operator.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=source))
    return operator


def compositions(*lead: int, concentration: float = 2.0, shares: int = 3) -> Tensor:
    source = np.random.default_rng(0)
    rows = source.dirichlet([concentration] * shares, lead)
    return torch.from_numpy(rows).float()


def log_normal_law(x: Tensor, operator: ScoreNeuralOperator) -> Tensor:
    """Of free coordinates, normal with the operator's shift and scale: (N,)."""
    z = (x - operator.shift) / operator.scale
    return -0.5 * z.square().sum(1) - (operator.scale * math.sqrt(2 * math.pi)).log().sum()


# ------------------------------------------------------------------------ there and back


@pytest.mark.parametrize("chart", CHARTS)
def test_compositions_come_back(chart: str) -> None:
    operator = make(simplex(chart), (3,))
    y = compositions(50)
    z = operator.encode(y)
    assert z.shape == (50, 2)
    torch.testing.assert_close(operator.decode(z), y, rtol=1e-5, atol=0)


def test_additive_coordinates_are_logarithms_of_ratios_to_the_last_share() -> None:
    y = compositions(20)
    z = make(simplex("additive"), (3,), shift=(0.0,), scale=(1.0,)).encode(y)
    torch.testing.assert_close(z, (y[:, :2] / y[:, 2:]).log(), rtol=1e-5, atol=1e-6)


def test_isometric_coordinates_keep_aitchison_distances() -> None:
    y = compositions(20, shares=5)
    x = make(simplex("isometric"), (5,), shift=(0.0,), scale=(1.0,)).encode(y)
    centred = y.log() - y.log().mean(1, keepdim=True)
    torch.testing.assert_close(torch.cdist(x, x), torch.cdist(centred, centred))


@pytest.mark.parametrize("chart", CHARTS)
def test_a_small_last_share_keeps_its_digits(chart: str) -> None:
    operator = make(simplex(chart), (3,))
    y = torch.tensor([[0.4, 0.6 - 3e-9, 3e-9], [1e-12, 1.0, 2e-20]])
    torch.testing.assert_close(operator.decode(operator.encode(y)), y, rtol=2e-5, atol=0)


def test_values_in_a_box_come_back() -> None:
    operator = make(BOX, (2,))
    y = torch.rand(50, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([3.0, 5.0])
    y = y - torch.tensor([1.0, 0.0])
    z = operator.encode(y)
    logits = torch.stack([((y[:, 0] + 1) / 3).logit(), (y[:, 1] / 5).logit()], 1)
    torch.testing.assert_close(z * operator.scale + operator.shift, logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(operator.decode(z), y, rtol=1e-5, atol=1e-6)


def test_all_pixels_of_bytes_come_back_from_a_box_half_a_step_wider() -> None:
    wide = BoxTransform(kind="box", low=-0.5, high=255.5)
    operator = make(wide, (1, 16, 16), shift=(0.0,), scale=(2.0,), domain="image")
    pixels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(operator.decode(operator.encode(pixels)), pixels)


def test_axes_before_a_sample_do_not_matter() -> None:
    operator = make(simplex("isometric"), (3,))
    y = compositions(4, 6)
    flat = operator.to_model(y.flatten(0, 1))
    assert torch.equal(operator.to_model(y).flatten(0, 1), flat)


@pytest.mark.parametrize("transform", [simplex("isometric"), BOX], ids=["simplex", "box"])
def test_autocast_does_not_reach_the_coordinates(
    transform: SimplexTransform | BoxTransform,
) -> None:
    shape = (3,) if transform.kind == "simplex" else (2,)
    operator, y = make(transform, shape), compositions(10)[:, : shape[0]]
    z = operator.encode(y)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(operator.encode(y), z)
        drawn = operator.decode(z)
    assert torch.equal(drawn, operator.decode(z))


# ------------------------------------------------------------------------------- density


def test_the_density_of_an_additive_logistic_normal_law() -> None:
    operator = normal(make(simplex("additive"), (3,)))
    y = compositions(20).double()
    y = y / y.sum(1, keepdim=True)
    x = (y[:, :2] / y[:, 2:]).log()
    # dy/dx = diag(y) - y y', whose determinant is the product of all shares.
    expected = log_normal_law(x, operator) - y.log().sum(1)
    found = operator.log_prob(torch.zeros(2).double(), y, tolerance=1e-8)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_density_of_an_isometric_logistic_normal_law() -> None:
    operator = normal(make(simplex("isometric"), (3,)))
    y = compositions(20).double()
    y = y / y.sum(1, keepdim=True)
    a, b, c = y.log().unbind(1)
    x = torch.stack([(a - b) / math.sqrt(2), (a + b - 2 * c) / math.sqrt(6)], 1)
    expected = log_normal_law(x, operator) - y.log().sum(1) - 0.5 * math.log(3)
    found = operator.log_prob(torch.zeros(2).double(), y, tolerance=1e-8)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_density_of_a_logit_normal_law() -> None:
    operator = normal(make(BOX, (2,)))
    share = compositions(20)[:, :2].double()
    width = torch.tensor([3.0, 5.0]).double()
    expected = log_normal_law(share.logit(), operator)
    expected -= (width * share * (1 - share)).log().sum(1)
    y = share * width - torch.tensor([1.0, 0.0])
    found = operator.log_prob(torch.zeros(2).double(), y, tolerance=1e-8)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("chart", CHARTS)
def test_the_density_integrates_to_one_over_the_triangle(chart: str) -> None:
    operator = woken(make(simplex(chart), (3,))).double()
    nodes, weights = np.polynomial.legendre.leggauss(40)
    axis, weights = torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)
    first, rest = torch.cartesian_prod(axis, axis).unbind(1)
    # The second share and the third are parts of what the first left.
    y = torch.stack([first, (1 - first) * rest, (1 - first) * (1 - rest)], 1)
    masses = torch.cartesian_prod(weights, weights).prod(1) * (1 - first)
    u = operator.embed(compositions(5).double())
    density = operator.log_prob(u, y, tolerance=1e-6).exp()
    assert float(density.max() / density.mean()) > 2
    assert float(masses @ density) == pytest.approx(1, abs=2e-3)


# ------------------------------------------------------------------------------- samples


@pytest.mark.parametrize("chart", CHARTS)
def test_samples_are_inside_even_where_shares_underflow(chart: str) -> None:
    operator = woken(make(simplex(chart), (6,), shift=(0.0,), scale=(60.0,)))
    drawn = operator.sample(operator.embed(compositions(4, shares=6)), 400, steps=4)
    assert bool((drawn > 0).all())
    # the scale is such that some are at the smallest number there is
    assert float(drawn.min()) == torch.finfo(torch.float32).tiny
    torch.testing.assert_close(drawn.sum(1), torch.ones(400), rtol=0, atol=1e-6)
    assert bool(operator.encode(drawn).isfinite().all())


def test_samples_of_a_box_are_inside_even_where_they_round_to_its_ends() -> None:
    operator = woken(make(BOX, (2,), shift=(0.0,), scale=(60.0,)))
    drawn = operator.sample(operator.embed(torch.tensor([[0.5, 2.0]])), 400, steps=4)
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([2.0, 5.0])
    assert bool(((drawn > low) & (drawn < high)).all())
    assert float(drawn[:, 1].max()) == float(np.nextafter(np.float32(5), np.float32(0)))
    assert bool(operator.encode(drawn).isfinite().all())


def test_normal_coordinates_have_the_mean_and_deviation_that_they_are_scaled_by() -> None:
    operator = normal(make(simplex("additive"), (3,)))
    drawn = operator.sample(torch.zeros(2).double(), 4000, steps=30)
    x = (drawn[:, :2] / drawn[:, 2:]).log()
    # four standard errors
    torch.testing.assert_close(x.mean(0), operator.shift, rtol=0, atol=4 * 0.7 / 4000**0.5)
    torch.testing.assert_close(x.std(0), operator.scale, rtol=4 / 8000**0.5, atol=0)


# ------------------------------------------------------------------------------ training


@pytest.mark.parametrize(("kind", "references"), list(product(("simplex", "box"), (0, 5))), ids=str)
def test_the_loss_is_that_of_the_free_coordinates_themselves(kind: str, references: int) -> None:
    shape = (3,) if kind == "simplex" else (2,)
    operator = woken(make(simplex("isometric") if kind == "simplex" else BOX, shape))
    plain = operator.spec.model_copy(
        update={
            "shape": (2,),
            "model": operator.spec.model.model_copy(update={"transform": schema.Model().transform}),
        }
    )
    free = ScoreNeuralOperator(plain).eval()
    free.load_state_dict(operator.state_dict())
    source = torch.Generator().manual_seed(3)
    samples = compositions(2, 4 + references + 3)[..., : shape[0]]
    targets, others, context = samples.split([4, references, 3], 1)

    def batch(turn: ScoreNeuralOperator) -> Batch:
        def seen(values: Tensor) -> Tensor:
            if turn is operator:
                return values
            return operator.transform.inverse(values)

        return Batch(
            context=seen(context.flatten(0, 1)),
            lengths=torch.tensor([3, 3]),
            rows=torch.arange(2),
            targets=seen(targets),
            references=seen(others),
            times=times,
            noise=noise,
            posterior=torch.zeros(2, 4, 2),
            null=torch.zeros(2, 4, dtype=torch.bool),
        )

    times, noise = torch.rand(2, 4, generator=source), torch.randn(2, 4, 2, generator=source)
    found = operator(batch(operator), schema.Objective(), 0.1)["total"]
    torch.testing.assert_close(found, free(batch(free), schema.Objective(), 0.1)["total"])


def test_an_autoencoder_sees_free_coordinates() -> None:
    autoencoder = schema.MlpAutoencoder(kind="mlp", latent=3, width=8, depth=1)
    operator = make(simplex("isometric"), (5,), shift=(0.0,), scale=(1.0,), autoencoder=autoencoder)
    assert operator.autoencoder.encoder[0].in_features == 4
    drawn = operator.decode(torch.randn(7, 3))
    assert drawn.shape == (7, 5)
    torch.testing.assert_close(drawn.sum(1), torch.ones(7))


def test_an_operator_of_shapes_alone_and_one_that_was_saved(tmp_path: Path) -> None:
    operator = woken(make(simplex("isometric"), (3,)))
    with torch.device("meta"):
        assert ScoreNeuralOperator(operator.spec).transform.free == (2,)
    operator.save_pretrained(tmp_path)
    loaded = ScoreNeuralOperator.from_pretrained(tmp_path)
    u = operator.embed(compositions(4))
    assert torch.equal(loaded.sample(u, 5, steps=3), operator.sample(u, 5, steps=3))


# ------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            (0.5, 0.5, 0.0),
            r"share of a composition is not above 0 \| at: sample 1, entry 2 \| got: 0\.0 \| "
            r"expected: shares above 0 that add up to 1 \| do: replace zeros",
        ),
        ((0.7, 0.5, -0.2), r"not above 0 \| at: sample 1, entry 2 \| got: -0\.2"),
        (
            (0.5, 0.2, 0.2),
            r"do not add up to 1 \| at: sample 1 \| got: a sum of 0\.9 \| expected: 1, .* \| "
            r"do: divide each sample by its sum",
        ),
    ],
)
def test_samples_that_are_no_compositions(row: tuple[float, ...], message: str) -> None:
    operator = make(simplex("isometric"), (3,))
    samples = torch.tensor([(0.2, 0.3, 0.5), row])
    for call in (operator.embed, operator.encode):
        with pytest.raises(DataError, match=message):
            call(samples)
    with pytest.raises(DataError, match=message):
        operator.log_prob(torch.zeros(2), samples)


@pytest.mark.parametrize("value", [5.0, 5.5, 5 - 1e-9])
def test_samples_on_the_edge_of_a_box_or_outside(value: float) -> None:
    samples = torch.tensor([(0.0, 1.0), (1.0, value)], dtype=torch.float64)
    told = f"{np.float32(value):.9g}".replace(".", r"\.")
    message = (
        rf"not inside of the box \| at: sample 1, entry 1 \| got: {told} \| "
        r"expected: above 0 and below 5 \| do: set model\.transform\.low and \.high"
    )
    with pytest.raises(DataError, match=message):
        make(BOX, (2,)).embed(samples)


def test_pixels_at_the_ends_of_a_box() -> None:
    exact = BoxTransform(kind="box", low=0.0, high=255.0)
    operator = make(exact, (1, 2, 2), shift=(0.0,), scale=(1.0,), domain="image")
    with pytest.raises(DataError, match=r"at: sample 0, entry 3 \| got: 255 \|"):
        operator.embed(torch.tensor([[[[9, 1], [1, 255]]]], dtype=torch.uint8))


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"no compositions.*shape \(1, 2, 2\).*two shares"):
        make(simplex("additive"), (1, 2, 2), domain="image")
    with pytest.raises(ConfigError, match=r"no compositions.*shape \(1,\).*two shares or more"):
        make(simplex("additive"), (1,))
    with pytest.raises(ConfigError, match=r"Bernoulli.*kind=box.*model\.likelihood=gaussian"):
        make(BOX, (2,), likelihood="bernoulli")
    with pytest.raises(ConfigError, match=r"not of the free coordinates.*got: 3 and 3.*1 or 2"):
        make(simplex("additive"), (3,), shift=(0.0,) * 3, scale=(1.0,) * 3)
    with pytest.raises(ConfigError, match=r"ends do not fit.*shape \(4,\).*one number, or 4"):
        make(BOX, (4,))
    with pytest.raises(ConfigError, match=r"without an inside.*low 1\.0, high 1\.0"):
        make(BoxTransform(kind="box", low=1.0), (2,))
    with pytest.raises(ValidationError, match="finite"):
        BoxTransform(kind="box", high=math.inf)
