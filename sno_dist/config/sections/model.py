"""The operator: autoencoder, score network, SDE."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    Field,
    FiniteFloat,
    PositiveFloat,
    PositiveInt,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from sno_dist.config.sections.section import Section

__all__ = [
    "Autoencoder",
    "BoxTransform",
    "ConvAutoencoder",
    "IdentityAutoencoder",
    "MixtureHead",
    "MlpAutoencoder",
    "Model",
    "Network",
    "NoTransform",
    "Nomad",
    "Schedule",
    "ScoreNet",
    "SimplexTransform",
    "TokenOperator",
    "Transform",
]

Corner = FiniteFloat | Annotated[tuple[FiniteFloat, ...], Field(min_length=1)]


class Schedule(Section):
    """The SDE: alpha_t and sigma_t for t in [0, 1]."""

    kind: Literal["vp", "ve", "sub_vp"] = "vp"
    beta_min: PositiveFloat = Field(default=0.1, description="VP and sub-VP")
    beta_max: PositiveFloat = Field(default=20.0, description="VP and sub-VP")
    sigma: PositiveFloat = Field(default=25.0, gt=1, description="VE: g = sigma**t")


class NoTransform(Section):
    """No transform: entries of a sample may be any numbers."""

    kind: Literal["none"] = "none"


class SimplexTransform(Section):
    """Compositions, D shares above 0 that add up to 1, as D - 1 log-ratios."""

    kind: Literal["simplex"]
    chart: Literal["isometric", "additive"] = Field(
        default="isometric",
        description="isometric: all shares count alike; additive: the last is the reference",
    )


class BoxTransform(Section):
    """Entries strictly between two ends, such as proportions, as their logits."""

    kind: Literal["box"]
    low: Corner = Field(
        default=0.0, description="one number, or one for each entry of the last axis"
    )
    high: Corner = Field(
        default=1.0, description="the same; pixels of bytes fit between -0.5 and 255.5"
    )


Transform = Annotated[NoTransform | SimplexTransform | BoxTransform, Field(discriminator="kind")]


class IdentityAutoencoder(Section):
    """No autoencoder: the score lives in data space."""

    kind: Literal["identity"]


class MlpAutoencoder(Section):
    """The paper's VAE: fully connected encoder and decoder."""

    kind: Literal["mlp"]
    latent: PositiveInt = 32
    width: PositiveInt = 512
    depth: PositiveInt = 3


class ConvAutoencoder(Section):
    """A small convolutional VAE whose latent keeps the image's layout: one token a cell."""

    kind: Literal["conv"] = "conv"
    channels: PositiveInt = Field(default=8, description="latent entries per token")
    width: PositiveInt = Field(
        default=32, description="channels at half resolution; doubled per further halving"
    )
    halvings: PositiveInt = Field(
        default=2, le=5, description="times that height and width are halved"
    )


Autoencoder = Annotated[
    IdentityAutoencoder | MlpAutoencoder | ConvAutoencoder, Field(discriminator="kind")
]


class Nomad(Section):
    """Branch(u), trunk(x, t), and an output network on both (the paper's NOMAD)."""

    kind: Literal["nomad"]
    width: PositiveInt = 500
    depth: PositiveInt = 7
    branch: Literal["mlp", "linear"] = Field(
        default="mlp", description="linear: affine in u, which generalised ten times better in 2-D"
    )
    join: Literal["concat", "product"] = Field(
        default="concat", description="how branch and trunk meet"
    )
    fourier: PositiveFloat = Field(
        default=10.0, description="standard deviation of the time frequencies"
    )
    detail: PositiveFloat | None = Field(
        default=None, description="the same of frequencies in space; none: x alone"
    )


class MixtureHead(Section):
    """A mixture of score fields whose weights' numerators are positive and affine in u."""

    kind: Literal["mixture"]
    terms: PositiveInt = Field(default=128, description="score fields that are mixed")
    width: PositiveInt = 256
    depth: PositiveInt = 4
    fourier: PositiveFloat = Field(
        default=1.0, description="standard deviation of the time frequencies"
    )
    detail: PositiveFloat = Field(
        default=0.5, description="standard deviation of the frequencies in space"
    )


class ScoreNet(Section):
    """The paper's U-shaped multilayer perceptron for images and latents."""

    kind: Literal["scorenet"]
    width: PositiveInt = 512
    levels: PositiveInt = 3
    fourier: PositiveFloat = 10.0


class TokenOperator(Section):
    """Blocks that mix tokens linearly and channels by a gated MLP, with u at every block."""

    kind: Literal["tokens"] = "tokens"
    width: PositiveInt = 192
    hidden: PositiveInt = 384
    blocks: PositiveInt = 4
    groups: PositiveInt = Field(default=4, description="token-mixing matrices per block")

    @field_validator("groups")
    @classmethod
    def _share_the_width(cls, groups: int, info: ValidationInfo) -> int:
        if info.data.get("width", groups) % groups:
            raise PydanticCustomError("groups", "a divisor of the width")
        return groups


Network = Annotated[Nomad | MixtureHead | ScoreNet | TokenOperator, Field(discriminator="kind")]


class Model(Section):
    """The operator: autoencoder, score network and SDE. The embedder has its own section."""

    transform: Transform = Field(
        default=NoTransform(),
        description="constrained samples as free coordinates, in which everything is learned; what "
        "is drawn meets the constraint",
    )
    autoencoder: Autoencoder = ConvAutoencoder()
    network: Network = TokenOperator()
    likelihood: Literal["gaussian", "bernoulli"] = Field(
        default="bernoulli",
        description="gaussian: squared error summed; bernoulli: pixels in [0, 1]",
    )
    schedule: Schedule = Schedule()
    prediction: Literal["edm", "noise"] = Field(
        default="edm",
        description="noise: score = network / sigma_t; edm: preconditioned at every level",
    )
    base: Literal["none", "gaussian"] = Field(
        default="none",
        description="closed-form score that the network corrects, prediction edm; gaussian: that "
        "of the context set's mean and the covariance within distributions",
    )
