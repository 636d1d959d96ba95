"""The density of samples under an operator."""

from __future__ import annotations

import torch
from torch import Tensor

from sno_dist.diffusion.likelihood import log_density
from sno_dist.model.parts import OperatorParts
from sno_dist.score.guidance import guided

__all__ = ["log_prob"]


def log_prob(
    operator: OperatorParts, u: Tensor, x: Tensor, probes: int | None, tolerance: float
) -> Tensor:
    """See `ScoreNeuralOperator.log_prob`."""
    with torch.no_grad():
        z = operator.latents(x)
    signs = None
    if probes is not None:
        generator = torch.Generator().manual_seed(0)
        signs = torch.randint(0, 2, (probes, *z.shape), generator=generator).to(z) * 2 - 1
    score = guided(operator.score_model, u.expand(len(z), -1), operator.unknown, 1.0)
    density = log_density(score, operator.schedule, z, probes=signs, tolerance=tolerance)
    if operator.autoencoder.trains:
        return density
    transform, scale = operator.transform, operator.scale
    free = transform.inverse(x.to(scale))
    volume = scale.expand(transform.free).log().sum() + transform.log_det(free)
    return density - volume - operator.latent_deviation.log().sum()
