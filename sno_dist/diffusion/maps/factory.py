"""From a config section to the transform of samples: one match."""

from __future__ import annotations

import torch

from sno_dist.config.schema import BoxTransform, NoTransform, SimplexTransform
from sno_dist.diffusion.maps import transform as of
from sno_dist.diffusion.maps.simplex import additive_log_ratio, isometric_log_ratio
from sno_dist.errors import ConfigError

__all__ = ["transform_of"]


def transform_of(
    section: NoTransform | SimplexTransform | BoxTransform, shape: tuple[int, ...]
) -> of.Transform:
    """What stands between samples of a shape and their free coordinates.

    Raises:
        ConfigError: If the samples cannot be of that kind.
    """
    # With numbers, also where an operator is made of shapes alone.
    with torch.device("cpu"):
        match section:
            case NoTransform():
                return of.Identity(shape)
            case SimplexTransform():
                _check_composition(shape)
                additive = section.chart == "additive"
                ratios = additive_log_ratio if additive else isometric_log_ratio
                return of.OntoSimplex(ratios(shape[0] - 1))
            case BoxTransform():
                _check_corners(section, shape)
                return of.OntoBox(shape, torch.tensor(section.low), torch.tensor(section.high))


def _check_composition(shape: tuple[int, ...]) -> None:
    if len(shape) != 1 or shape[0] < 2:
        raise ConfigError(
            "samples that are no compositions",
            where="model.transform.kind",
            got=f"samples of shape {shape}",
            expected="vectors of two shares or more",
        )


def _check_corners(section: BoxTransform, shape: tuple[int, ...]) -> None:
    entries, got = shape[-1], f"low {section.low}, high {section.high}"
    ends = [e if isinstance(e, tuple) else (e,) * entries for e in (section.low, section.high)]
    if any(len(end) != entries for end in ends):
        raise ConfigError(
            "a box's ends do not fit the data",
            where="model.transform",
            got=f"{got}, samples of shape {shape}",
            expected=f"one number, or {entries}",
        )
    if any(low >= high for low, high in zip(*ends, strict=True)):
        raise ConfigError(
            "a box without an inside",
            where="model.transform",
            got=got,
            expected="low below high in every entry",
        )
