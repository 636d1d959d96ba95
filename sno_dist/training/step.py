"""One optimizer update: forward, backward, one small reduction, checks, then the update."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from sno_dist.config.schema import Training
from sno_dist.errors import RunError
from sno_dist.model.batch import Batch
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime import collectives, preemption
from sno_dist.training.optim import learning_rates, set_rates

__all__ = ["StepOutcome", "Stepper", "is_rank_agreed"]

TERMS = ("total", "reconstruction", "kl", "score")


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
        accelerator: Scales, synchronises and casts.
        wrapped: The operator as the accelerator wrapped it.
        operator: The raw operator.
        optimizer: As the accelerator wrapped it.
        training: The config's section.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        wrapped: nn.Module,
        operator: ScoreNeuralOperator,
        optimizer: torch.optim.Optimizer,
        training: Training,
    ) -> None:
        self._accelerator, self._wrapped, self._operator = accelerator, wrapped, operator
        self._optimizer, self._training = optimizer, training
        self._groups: Sequence[Sequence[Tensor]] = [g["params"] for g in optimizer.param_groups]

    def __call__(self, batch: Batch, step: int) -> StepOutcome:
        """Do update number `step`, counted from 0.

        Raises:
            RunError: If the loss or the gradient is not finite; nothing has been updated then.

        **Collective**: the gradient's reduction and one of a few hundred numbers.
        """
        set_rates(self._optimizer, learning_rates(step, self._training))
        with collectives.in_contact(f"training step {step}"):
            sums = self._backward(batch, step)
        stop = torch.tensor([float(preemption.requested())], dtype=torch.float64)
        agreed = collectives.sum_over_ranks(torch.cat([sums, stop]), f"training step {step}")
        losses, latent, flag = agreed.split([len(TERMS), len(sums) - len(TERMS), 1])
        norm, finite = self._clip()
        scaler = self._accelerator.scaler
        if not bool(losses.isfinite().all()) or (not finite and scaler is None):
            self._refuse(step, losses, norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._move_latent(latent)
        return StepOutcome(
            losses=dict(zip(TERMS, losses.tolist(), strict=True)),
            norm=norm,
            skipped=bool(self._accelerator.optimizer_step_was_skipped),
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
        held = len(batch.lengths)
        size = training.micro or held
        sums = torch.zeros(len(TERMS) + 2 * self._operator.autoencoder.size, dtype=torch.float64)
        for start in range(0, held, size):
            end = min(start + size, held)
            last = end == held
            part = batch.part(start, end) if size < held else batch
            part = part.to(self._accelerator.device)
            share = (end - start) / training.distributions
            with nullcontext() if last else self._accelerator.no_sync(self._wrapped):
                losses = self._wrapped(part, training.objective, kl_weight)
                self._accelerator.backward(losses["total"] * (share * world.size))
            means = torch.stack([losses[name].detach() for name in TERMS]).double() * share
            sums += torch.cat([means, losses["latent_sum"], losses["latent_square"]]).cpu()
        return sums

    def _clip(self) -> tuple[float, bool]:
        """Clip each group alone, so that one's scale does not steer the other's steps."""
        self._accelerator.unscale_gradients()
        norms = [nn.utils.clip_grad_norm_(group, self._training.clip) for group in self._groups]
        norm = float(torch.stack(norms).norm())
        return norm, norm < float("inf")

    def _move_latent(self, latent: Tensor) -> None:
        total, square = latent.to(self._accelerator.device).chunk(2)
        count = self._training.distributions * self._training.targets
        self._operator.update_latent(total, square, count)

    def _refuse(self, step: int, losses: Tensor, norm: float) -> None:
        found = ", ".join(f"{n} {v:.3g}" for n, v in zip(TERMS, losses.tolist(), strict=True))
        raise RunError(
            f"the loss or the gradient is not finite at step {step}; nothing was updated",
            got=f"{found}, gradient norm {norm:.3g}",
            fix="lower training.learning_rate or training.clip; the same command goes on from "
            "the last checkpoint",
        )


def is_rank_agreed(operator: nn.Module) -> bool:
    """Whether all ranks hold the same weights, by the exact sum of each tensor. **Collective.**"""
    total = torch.stack([p.detach().double().sum() for p in operator.parameters()])
    prints = collectives.gather(total.cpu().numpy().tobytes(), "comparing weights")
    return all(print_ == prints[0] for print_ in prints)
