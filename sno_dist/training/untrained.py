"""From a config and a population to the operator that training starts from."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sno_dist.config.schema import Config
from sno_dist.model.build import OperatorSpec
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.shards.manifest import Manifest

__all__ = ["untrained_operator"]


def untrained_operator(
    config: Config, manifest: Manifest, fitted: Mapping[str, Tensor] | None = None
) -> ScoreNeuralOperator:
    """A config's operator over a population, with its initial weights.

    Args:
        config: The run's.
        manifest: The population's.
        fitted: What the embedding stage fitted, if the embedding is fitted at all.

    Raises:
        ConfigError: If its parts do not fit the data or each other.
    """
    spec = OperatorSpec(
        model=config.model,
        embedding=config.embedding,
        domain=manifest.domain,
        shape=manifest.shape,
        shift=manifest.shift,
        scale=manifest.scale,
        seen=tuple(entry.name for entry in manifest.split("seen")),
        guidable=config.training.objective.drop > 0,
    )
    return ScoreNeuralOperator(spec, fitted)
