"""Settings of drawing that do not go with those of training: said by the stage that comes first."""

from __future__ import annotations

from sno_dist.config.schema import Config
from sno_dist.errors import ConfigError

__all__ = ["check_drawing"]


def check_drawing(config: Config) -> None:
    """Refuse what the operator of a config cannot be drawn by.

    Raises:
        ConfigError: With the setting to change.
    """
    _check_guidance(config)
    _check_acceptance(config)


def _check_guidance(config: Config) -> None:
    """Guidance moves away from the null embedding, which only dropped embeddings train."""
    if config.training.objective.drop > 0:
        return
    chosen, probe = config.sampling.guidance, config.training.probe
    weights = {"sampling.guidance": chosen if isinstance(chosen, tuple) else (chosen,)}
    if probe.every:
        weights["training.probe.guidance"] = (probe.guidance,)
    for setting, own in weights.items():
        if any(weight != 1.0 for weight in own):
            raise ConfigError(
                "guidance needs a null embedding that was trained",
                where=setting,
                got=f"{', '.join(map(str, own))} with training.objective.drop=0",
                fix=f"set {setting}=1.0, or training.objective.drop=0.1",
            )


def _check_acceptance(config: Config) -> None:
    """Only an embedding of new samples tells which to keep; said before hours of training."""
    if config.sampling.acceptance < 1 and config.embedding.kind == "conditional":
        raise ConfigError(
            "what is drawn is accepted by its own embedding",
            where="sampling.acceptance",
            got=f"{config.sampling.acceptance} with embedding.kind=conditional, which has none",
            fix="set sampling.acceptance=1, or embedding.kind=set_encoder, prototype or kme",
        )
