"""Settings of training that do not go together, refused before anything is built."""

from __future__ import annotations

import math

from sno_dist.config.drawing import check_drawing
from sno_dist.config.schema import Config, Training
from sno_dist.errors import ConfigError
from sno_dist.runtime import collectives
from sno_dist.runtime.accelerator import engine_name, splits_weights
from sno_dist.training.checkpoint import is_trained

__all__ = ["check_settings"]


def check_settings(config: Config) -> None:
    """Refuse a config that cannot be trained on these ranks.

    Raises:
        ConfigError: With the setting to change.
    """
    _check_base(config)
    _check_matching(config)
    _check_references(config)
    check_drawing(config)
    # samples of what is trained may be drawn on any number of them
    if not is_trained(config):
        _check_ranks(config.training, collectives.world().size)
        _check_engine(config.training.objective.matching)


def _check_base(config: Config) -> None:
    if config.model.base == "none":
        return
    for name, told in (
        ("targets", "the covariance within a distribution takes two targets of each"),
        ("distributions", "the covariance between distributions takes two of them in a batch"),
    ):
        count = getattr(config.training, name)
        if count < 2:
            fix = f"set training.{name}=2 or more, or model.base=none"
            raise ConfigError(told, where=f"training.{name}", got=count, fix=fix)


def _check_matching(config: Config) -> None:
    objective = config.training.objective
    matching, trains = objective.matching, config.model.autoencoder.kind != "identity"
    if matching == "denoising":
        return
    if objective.score_gradient > 0:
        raise ConfigError(
            "only the denoising objective has a gradient for the autoencoder",
            where="training.objective.score_gradient",
            got=f"{objective.score_gradient} with matching={matching}",
            fix="set training.objective.score_gradient=0 or matching=denoising",
        )
    if matching == "generalised" and trains:
        raise ConfigError(
            "generalised score matching looks along coordinates of the data",
            where="training.objective.matching",
            got=f"an autoencoder of kind {config.model.autoencoder.kind}",
            fix="set model.autoencoder.kind=identity, or matching=sliced",
        )
    if matching != "implicit" and config.training.targets < 3:
        raise ConfigError(
            "the slices of score matching are taken from other targets' noise",
            where="training.targets",
            got=config.training.targets,
            expected="3 or more",
            fix="raise training.targets, or set training.objective.matching=implicit",
        )


def _check_engine(matching: str) -> None:
    if matching != "denoising" and splits_weights():
        raise ConfigError(
            "this objective takes gradients of gradients, when weights spread over ranks are gone",
            where="training.objective.matching",
            got=f"{matching}, and an engine that splits each weight",
            fix="launch data parallel or ZeRO 1 or 2, or set training.objective.matching=denoising",
        )


def _check_references(config: Config) -> None:
    if not config.training.references:
        return
    if config.model.autoencoder.kind != "identity":
        raise ConfigError(
            "references are samples of data space",
            where="training.references",
            got=f"an autoencoder of kind {config.model.autoencoder.kind}",
            fix="set training.references=0 or model.autoencoder.kind=identity",
        )
    if config.training.objective.matching != "denoising":
        raise ConfigError(
            "references are for the noise that is to be predicted",
            where="training.references",
            got=f"training.objective.matching={config.training.objective.matching}",
            fix="set training.references=0 or training.objective.matching=denoising",
        )


def _check_ranks(training: Training, size: int) -> None:
    _check_passes(training, size)
    if size > training.distributions:
        raise ConfigError(
            "more ranks than distributions in a batch",
            where="training.distributions",
            got=f"{size} ranks, {training.distributions} distributions",
            fix="raise training.distributions or launch fewer ranks",
        )


def _check_passes(training: Training, size: int) -> None:
    """Engines that share gradients meet in each pass; data parallel ranks in the last alone."""
    micro, count = training.micro, training.distributions
    if micro is None or engine_name() == "data_parallel":
        return
    most, least = (math.ceil(share / micro) for share in (math.ceil(count / size), count // size))
    if most != least:
        raise ConfigError(
            "ranks would make different numbers of passes and wait for each other",
            where="training.micro",
            got=f"{count} distributions on {size} ranks, {micro} a pass",
            expected="as many passes on each rank",
            fix=f"take training.distributions as a multiple of {size * micro}",
        )
