"""The joint objective of a batch: autoencoder, embedder and score in one loss (eq. 16-18)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sno_dist.config.schema import Objective
from sno_dist.diffusion.objective import posterior_noise, times, weights
from sno_dist.diffusion.schedule import like
from sno_dist.embedding.features import sum_features
from sno_dist.model.batch import Batch
from sno_dist.model.latent import latent_sums
from sno_dist.model.parts import OperatorParts
from sno_dist.score.losses import score_losses

__all__ = ["joint_losses", "training_embedding"]


def joint_losses(
    operator: OperatorParts,
    batch: Batch,
    objective: Objective,
    kl_weight: float,
    *,
    at_rest: bool = False,
) -> dict[str, Tensor]:
    """See `ScoreNeuralOperator.forward`."""
    targets = operator.to_model(batch.targets.flatten(0, 1))
    with torch.set_grad_enabled(torch.is_grad_enabled() and not at_rest):
        mean, log_variance = operator.autoencoder.encode(targets)
        raw = mean + (0.5 * log_variance).exp() * batch.posterior.flatten(0, 1)
        losses = _autoencoder_losses(operator, targets, raw, mean, log_variance)
    share = 0.0 if at_rest else objective.score_gradient
    z = _share_gradient(operator.standardise(raw), share)
    losses["score"] = _score_loss(operator, batch, z, objective, share)
    losses["total"] = (
        objective.reconstruction * losses["reconstruction"]
        + kl_weight * losses["kl"]
        + objective.score * losses["score"]
    )
    if at_rest:
        # engines wait for a gradient of every weight: nought
        losses["total"] = losses["total"] + 0.0 * _sum_of_weights(operator.autoencoder)
    grouped = raw.unflatten(0, batch.times.shape)
    losses["latent"] = latent_sums(grouped, products=operator.score_model.base is not None)
    return losses


def training_embedding(operator: OperatorParts, batch: Batch, share: float) -> Tensor:
    """U of a batch's distributions, (P, U): from a table, or from its context sets.

    Args:
        operator: The operator.
        batch: The batch.
        share: Of the score's gradient, on its way back to the autoencoder.
    """
    base, view = operator.score_model.base, None
    if (u := operator.embedder.rows(batch.rows)) is None:
        with torch.set_grad_enabled(share > 0 and torch.is_grad_enabled()):
            view = operator.context_view(batch.context)
        u = operator.embedder(_share_gradient(view, share), batch.lengths)
    if base is None:
        return u
    with torch.no_grad():
        if view is None or operator.embedder.view == "data":
            view = operator.latents(batch.context)
        told = sum_features(view, batch.lengths)
    return torch.cat([u, base.statistic(told.mean, told.count)], 1)


def _autoencoder_losses(
    operator: OperatorParts, targets: Tensor, raw: Tensor, mean: Tensor, log_variance: Tensor
) -> dict[str, Tensor]:
    if not operator.autoencoder.trains:
        return {"reconstruction": raw.new_zeros(()), "kl": raw.new_zeros(())}
    out = operator.autoencoder.decode(raw).float()
    if operator.spec.model.likelihood == "bernoulli":
        miss = nn.functional.binary_cross_entropy_with_logits(out, targets, reduction="none")
    else:
        miss = (out - targets).square()
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    return {
        "reconstruction": miss.flatten(1).sum(1).mean(),
        "kl": divergence.sum(1).mean(),
    }


def _sum_of_weights(module: nn.Module) -> Tensor | float:
    return sum((weight.sum() for weight in module.parameters()), 0.0)


def _score_loss(
    operator: OperatorParts, batch: Batch, z: Tensor, objective: Objective, share: float
) -> Tensor:
    schedule, uniform = operator.schedule, batch.times.flatten()
    t = times(uniform, schedule, objective.times, objective.log_mean, objective.log_std)
    noise = batch.noise.flatten(0, 1)
    noised = like(schedule.alpha(t), z) * z + like(schedule.sigma(t), z) * noise
    u = training_embedding(operator, batch, share)
    u = u.repeat_interleave(batch.targets.shape[1], 0)
    u = torch.where(batch.null.flatten()[:, None], operator.unknown, u)
    if batch.references.shape[1]:
        noise = _mean_noise(operator, batch, z, noised, t)

    def along_data(x: Tensor, probe: Tensor) -> Tensor:
        # J'e, J the Jacobian of the data by x: gradients of random projections
        free = x.unflatten(1, operator.transform.free) * operator.scale + operator.shift
        along = (operator.transform.forward(free).flatten(1) * probe).sum()
        return torch.autograd.grad(along, x, create_graph=True)[0]

    field = along_data, math.prod(operator.transform.shape)
    # the noise of the next targets of the same distribution, whatever ranks and passes there are
    probe = torch.cat([batch.noise.roll(1, 1), batch.noise.roll(2, 1)], 2).flatten(0, 1)
    found = score_losses(
        operator.score_model, objective.matching, u, noised, t, noise, probe, field
    )
    return (weights(t, schedule, objective.weight) * found).mean()


def _mean_noise(
    operator: OperatorParts, batch: Batch, z: Tensor, noised: Tensor, t: Tensor
) -> Tensor:
    """The noise's mean given all targets and references, in data space: (P B, Z)."""
    others = operator.standardise(operator.to_model(batch.references).flatten(2))
    own, shape = z.reshape(len(others), -1, others.shape[2]), batch.times.shape
    sources = torch.cat([own, others], 1)
    with torch.autocast(z.device.type, enabled=False):
        points, schedule = noised.reshape(own.shape), operator.schedule
        return posterior_noise(points, t.reshape(shape), schedule, sources).flatten(0, 1)


def _share_gradient(x: Tensor, share: float) -> Tensor:
    """x, whose gradient is multiplied by `share` on its way back."""
    if share == 1.0:
        return x
    return x.detach() if share == 0.0 else x.detach() + share * (x - x.detach())
