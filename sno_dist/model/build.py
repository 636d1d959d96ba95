"""The factory: from config sections to the parts of the operator. One `match` each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from sno_dist.config import schema
from sno_dist.diffusion import schedule as sde
from sno_dist.diffusion.maps.factory import transform_of
from sno_dist.diffusion.maps.transform import Transform
from sno_dist.embedding.embedder import Conditional, Embedder, Prototype
from sno_dist.embedding.factory import make_feature_map
from sno_dist.embedding.kme import Kme
from sno_dist.embedding.set_encoder import SetEncoder
from sno_dist.errors import ConfigError
from sno_dist.model import autoencoder as vae
from sno_dist.score.base import GaussianBase
from sno_dist.score.mixture import MixtureHead
from sno_dist.score.nomad import Nomad
from sno_dist.score.scorenet import ScoreNet
from sno_dist.score.tokens import TokenOperator

__all__ = [
    "OperatorSpec",
    "check_width",
    "make_autoencoder",
    "make_base",
    "make_embedder",
    "make_network",
    "make_schedule",
    "make_transform",
]


class OperatorSpec(BaseModel):
    """All that is needed to build an operator before its weights are loaded; kept beside them.

    Args:
        model: The config's section.
        embedding: The config's section.
        domain: "image" (uint8) or "vector" (float32).
        shape: One sample's shape.
        shift: Subtracted from a sample's entries, of its free coordinates' where the model has a
            transform: one value, or one for each of the last axis.
        scale: Then divided by.
        seen: Names of the training distributions, in the order of the table's rows.
        guidable: Whether training drops u now and then, without which there is no null embedding
            for guidance to move away from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: schema.Model
    embedding: schema.Embedding
    domain: Literal["image", "vector"]
    shape: tuple[int, ...]
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    seen: tuple[str, ...]
    guidable: bool = True


def make_schedule(section: schema.Schedule) -> sde.Schedule:
    """The SDE."""
    match section.kind:
        case "ve":
            return sde.VarianceExploding(section.sigma)
        case "vp":
            return sde.VariancePreserving(section.beta_min, section.beta_max)
        case "sub_vp":
            return sde.SubVariancePreserving(section.beta_min, section.beta_max)


def make_transform(spec: OperatorSpec) -> Transform:
    """What stands between samples and their free coordinates.

    Raises:
        ConfigError: If it does not fit the data's shape, the likelihood, or shift and scale.
    """
    transform = transform_of(spec.model.transform, spec.shape)
    _check_free(spec, transform.free)
    return transform


def make_autoencoder(spec: OperatorSpec) -> vae.Autoencoder:
    """The autoencoder.

    Raises:
        ConfigError: If it does not fit the data's shape or domain.
    """
    section, shape = spec.model.autoencoder, spec.shape
    _check_likelihood(spec)
    match section:
        case schema.IdentityAutoencoder():
            return vae.IdentityAutoencoder(shape)
        case schema.MlpAutoencoder():
            return vae.MlpAutoencoder(
                shape, latent=section.latent, width=section.width, depth=section.depth
            )
        case schema.ConvAutoencoder():
            _check_grid(shape, section.halvings)
            return vae.ConvAutoencoder(
                shape, channels=section.channels, width=section.width, halvings=section.halvings
            )


def make_embedder(
    spec: OperatorSpec, layout: tuple[int, int], fitted: Mapping[str, Tensor]
) -> Embedder:
    """The embedder.

    Args:
        spec: The operator's description.
        layout: (T, C) of the latent.
        fitted: What the embedding stage left, for embeddings that are fitted.
    """
    section = spec.embedding
    match section:
        case schema.SetEncoder():
            return SetEncoder(
                layout,
                width=section.width,
                blocks=section.blocks,
                features=section.features,
                queries=section.attention,
            )
        case schema.Prototype():
            return Prototype(layout)
        case schema.Kme():
            return Kme(make_feature_map(section, fitted), fitted, fixed=section.fixed)
        case schema.Conditional():
            return Conditional(len(spec.seen), section.features)


def make_base(spec: OperatorSpec, dims: int) -> GaussianBase | None:
    """The closed-form score beneath the network's.

    Args:
        spec: The operator's description.
        dims: Z, entries of a latent.

    Raises:
        ConfigError: If it does not go with the embedding or the prediction.
    """
    if spec.model.base == "none":
        return None
    if spec.model.prediction != "edm":
        raise ConfigError(
            "a closed-form base is part of the preconditioning",
            where="model.prediction",
            got=spec.model.prediction,
            expected="edm",
            fix="set model.prediction=edm or model.base=none",
        )
    if isinstance(spec.embedding, schema.Conditional):
        raise ConfigError(
            "a closed-form base is told by context sets",
            where="model.base",
            got="an embedding that has none",
            fix="set model.base=none or another embedding.kind",
        )
    return GaussianBase(dims)


def make_network(
    model: schema.Model, layout: tuple[int, int], embedding: tuple[int, int]
) -> nn.Module:
    """The score network F(u, x, c) for latents of `layout` and embeddings of layout `embedding`.

    Raises:
        ConfigError: If it is too narrow for what it is to predict.
    """
    dims, size = layout[0] * layout[1], embedding[0] * embedding[1]
    check_width(model, dims)
    section = model.network
    match section:
        case schema.Nomad():
            return Nomad(
                dims,
                size,
                width=section.width,
                depth=section.depth,
                linear_branch=section.branch == "linear",
                deviation=section.fourier,
                detail=section.detail,
                join=section.join,
            )
        case schema.MixtureHead():
            return MixtureHead(
                dims,
                size,
                terms=section.terms,
                width=section.width,
                depth=section.depth,
                deviation=section.fourier,
                detail=section.detail,
            )
        case schema.ScoreNet():
            return ScoreNet(
                dims,
                size,
                width=section.width,
                levels=section.levels,
                deviation=section.fourier,
            )
        case schema.TokenOperator():
            return TokenOperator(
                layout,
                embedding,
                width=section.width,
                hidden=section.hidden,
                blocks=section.blocks,
                groups=section.groups,
            )


def check_width(model: schema.Model, dims: int) -> None:
    """Refuse a network that is too narrow for what it is to predict.

    Noise has no structure: of `dims` directions a layer of `width` sees so many and no more.

    Raises:
        ConfigError: Telling the width that is needed.
    """
    network = model.network
    if model.prediction != "noise" or not isinstance(network, schema.ScoreNet | schema.Nomad):
        return
    if network.width < dims:
        raise ConfigError(
            "a network narrower than the latent cannot tell its noise",
            where="network.width, of model or of sampling.individual",
            got=network.width,
            expected=f"{dims} at least",
            fix="raise it, or set model.prediction=edm, which predicts less than the noise",
        )


def _check_likelihood(spec: OperatorSpec) -> None:
    if spec.domain == "vector" and spec.model.likelihood == "bernoulli":
        raise ConfigError(
            "a Bernoulli likelihood is for pixels",
            where="model.likelihood",
            got=f"vectors of {spec.shape[-1]} numbers",
            fix="set model.likelihood=gaussian",
        )


def _check_free(spec: OperatorSpec, free: tuple[int, ...]) -> None:
    if spec.model.transform.kind == "none":
        return
    if spec.model.likelihood == "bernoulli":
        raise ConfigError(
            "a Bernoulli likelihood is for pixels, and free coordinates are none",
            where="model.likelihood",
            got=f"model.transform.kind={spec.model.transform.kind}",
            fix="set model.likelihood=gaussian",
        )
    if len(spec.shift) not in (1, free[-1]) or len(spec.scale) not in (1, free[-1]):
        raise ConfigError(
            "shift and scale that are not of the free coordinates",
            where="model.transform",
            got=f"{len(spec.shift)} and {len(spec.scale)} numbers",
            expected=f"1 or {free[-1]} each",
        )


def _check_grid(shape: tuple[int, ...], halvings: int) -> None:
    if len(shape) != 3 or any(side % (1 << halvings) for side in shape[1:]):
        raise ConfigError(
            "the convolutional autoencoder does not fit the data",
            where="model.autoencoder",
            got=f"samples of shape {shape}",
            expected=f"images with sides divisible by {1 << halvings}",
            fix="change halvings, the images' size, or take kind=mlp",
        )
