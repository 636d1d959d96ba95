"""One optimizer update: forward, backward, one small reduction, checks, then the update."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from sno_dist.config.schema import Training
from sno_dist.model.batch import Batch
from sno_dist.runtime import collectives, preemption
from sno_dist.runtime.precision import dtype_of
from sno_dist.training.engines.engine import Engine
from sno_dist.training.optim import is_at_rest, learning_rates, set_rates

__all__ = ["NotFiniteError", "StepOutcome", "Stepper", "is_rank_agreed"]

TERMS = ("total", "reconstruction", "kl", "score")


class NotFiniteError(Exception):
    """A loss or gradient is not finite, on any rank; raised on every rank."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepOutcome:
    """What a step tells.

    Args:
        losses: Means over the global batch, by name.
        norm: Gradient norm before clipping.
        skipped: Whether fp16 overflowed and nothing was updated.
        stop: Whether any rank was asked to stop.
    """

    losses: dict[str, float]
    norm: float
    skipped: bool
    stop: bool


class Stepper:
    """Holds what an update needs; its only state is that of the parts it is given.

    Args:
        engine: The operator as it is spread over the ranks.
        training: The config's section.
    """

    def __init__(self, engine: Engine, training: Training) -> None:
        self._engine, self._operator, self._training = engine, engine.operator, training
        self._device = engine.operator.null.device
        self._dtype = dtype_of(training.precision, self._device)

    def __call__(self, batch: Batch, step: int) -> StepOutcome:
        """Do update number `step`, counted from 0.

        Raises:
            NotFiniteError: If the loss or the gradient is not; nothing has been updated then.

        **Collective**: the gradient's reduction and one of a few hundred numbers, or as many as
        the latent's covariances have where the score has a closed-form base.
        """
        set_rates(self._engine.optimizer, learning_rates(step, self._training))
        with collectives.in_contact(f"training step {step}"):
            sums = self._backward(batch, step)
        stop = torch.tensor([float(preemption.requested())], dtype=torch.float64)
        agreed = collectives.sum_over_ranks(torch.cat([sums, stop]), f"training step {step}")
        losses, latent, flag = agreed.split([len(TERMS), len(sums) - len(TERMS), 1])
        if not bool(losses.isfinite().all()):
            raise NotFiniteError(_found(losses, math.nan))
        self._engine.optimizer.norms.clear()
        with collectives.in_contact(f"the update of training step {step}"):
            skipped = self._engine.update()
        norm = self._engine.optimizer.norm
        scaler = self._engine.scaler
        # no scale below 1 helps: that is no overflow
        if not math.isfinite(norm) and (scaler is None or scaler.get_scale() < 1):
            raise NotFiniteError(_found(losses, norm))
        self._operator.update_latent(
            latent.to(self._device), self._training.distributions, self._training.targets
        )
        return StepOutcome(
            losses=dict(zip(TERMS, losses.tolist(), strict=True)),
            norm=norm,
            skipped=skipped,
            stop=bool(flag.item()),
        )

    def _backward(self, batch: Batch, step: int) -> Tensor:
        """Accumulate the gradient; returns this rank's share of the global means and sums.

        Ranks may hold different numbers of distributions, so each weighs its part by its share
        of the global batch; data parallelism then divides by the number of ranks.
        """
        training, world = self._training, collectives.world()
        warm = training.objective.kl_warmup
        kl_weight = training.objective.kl * min(1.0, (step + 1) / (warm + 1))
        at_rest = is_at_rest(step, training)
        held = len(batch.lengths)
        size = training.micro or held
        sums = torch.zeros(len(TERMS) + self._operator.latent_entries, dtype=torch.float64)
        for start in range(0, held, size):
            end = min(start + size, held)
            part = batch.part(start, end) if size < held else batch
            part = part.to(self._device)
            share = (end - start) / training.distributions
            with self._engine.accumulating(last=end == held):
                losses = self._engine.wrapped(
                    part, training.objective, kl_weight, self._dtype, at_rest=at_rest
                )
                self._engine.backward(losses["total"] * (share * world.size))
            means = torch.stack([losses[name].detach() for name in TERMS]).double() * share
            sums += torch.cat([means, losses["latent"]]).cpu()
        return sums


def _found(losses: Tensor, norm: float) -> str:
    found = ", ".join(f"{n} {v:.3g}" for n, v in zip(TERMS, losses.tolist(), strict=True))
    return f"{found}, gradient norm {norm:.3g}"


def is_rank_agreed(weights: Iterable[Tensor]) -> bool:
    """Whether all ranks hold the same weights, by the exact sum of each. **Collective.**"""
    total = torch.stack([w.detach().double().sum() for w in weights])
    prints = collectives.gather(total.cpu().numpy().tobytes(), "comparing weights")
    return all(print_ == prints[0] for print_ in prints)
