"""The optimizer, its two parameter groups and their learning rates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from sno_dist.config.schema import Training
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime import collectives

__all__ = [
    "ClippedAdamW",
    "build_optimizer",
    "is_at_rest",
    "learning_rates",
    "moment_keys",
    "set_rates",
]


class ClippedAdamW(AdamW):
    """AdamW that clips each group's gradient alone: one's scale does not steer the other's steps.

    The clipping is part of the step, since an engine that shares gradients among ranks shows them
    to the optimizer alone.

    Args:
        groups: Parameter groups.
        clip: Largest norm of a group's gradient.
        sharded: Whether each rank holds a share of every gradient; norms are then summed over
            ranks, and `step` is collective.
        options: AdamW's.

    Attributes:
        norms: Of each group's gradient before clipping, in this update.
    """

    def __init__(
        self, groups: list[dict[str, Any]], *, clip: float, sharded: bool, **options: Any
    ) -> None:
        super().__init__(groups, **options)
        self._clip, self._sharded = clip, sharded
        self.norms: list[float] = []

    @property
    def norm(self) -> float:
        """Of the whole gradient before clipping, in this update; NaN if no step was taken.

        An engine takes none where it finds the gradient to be not finite before the optimizer does.
        """
        return math.hypot(*self.norms) if self.norms else math.nan

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Clip and update; leave everything as it is where a norm is not finite.

        An engine may call it once for each group: an update's norms add up until it is cleared.
        """
        gradients = [held for group in self.param_groups if (held := _gradients(group["params"]))]
        norms = [self._norm(held) for held in gradients]
        self.norms += torch.stack(norms).tolist()
        # In fp16 the scaler has looked before, and the fused update heeds what it found.
        if not math.isfinite(self.norm) and getattr(self, "found_inf", None) is None:
            return
        for held, norm in zip(gradients, norms, strict=True):
            share = (self._clip / (norm + 1e-6)).clamp(max=1.0).to(held[0])
            torch._foreach_mul_(held, share)  # pyright: ignore[reportPrivateImportUsage]
        super().step(closure)

    def _norm(self, held: list[Tensor]) -> Tensor:
        # in float64 the norm of a finite gradient is finite: no group is updated before another
        # is found to be bad
        each = torch._foreach_norm(held, 2, dtype=torch.float64)  # pyright: ignore[reportPrivateImportUsage]
        norm = torch.stack(each).norm()
        if not self._sharded:
            return norm
        return collectives.sum_over_ranks(norm.square(), "the gradient's norm").sqrt()


def _gradients(parameters: list[Tensor]) -> list[Tensor]:
    """What this rank holds of their gradients."""
    held = [p.grad for p in parameters if p.grad is not None]
    # torch's sharded tensors know their local part
    return [local() if (local := getattr(g, "to_local", None)) else g for g in held]


def build_optimizer(
    operator: ScoreNeuralOperator, training: Training, *, sharded: bool = False
) -> ClippedAdamW:
    """AdamW over two groups: the autoencoder, and the rest."""
    autoencoder = list(operator.autoencoder.parameters())
    known = {id(parameter) for parameter in autoencoder}
    rest = [p for p in operator.parameters() if id(p) not in known]
    groups = [{"params": rest}] + ([{"params": autoencoder}] if autoencoder else [])
    return ClippedAdamW(
        groups,
        clip=training.clip,
        sharded=sharded,
        lr=training.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=training.weight_decay,
        fused=True,
    )


def moment_keys(moments: Mapping[str, Tensor], name: str) -> list[str]:
    """The keys under which a weight's state stands, "exp_avg" of "exp_avg/<name>"."""
    ending = f"/{name}"
    return [key[: -len(ending)] for key in moments if key.endswith(ending) and key.count("/") == 1]


def learning_rates(step: int, training: Training) -> tuple[float, float]:
    """Rates of the score and embedding, and of the autoencoder, at a step counted from 0.

    Equation: linear warm-up, then a cosine down to the `final` share; the autoencoder comes to
    rest after its own share of the steps, so that the latent stands still for what follows.
    """
    base = training.learning_rate
    rate = base * _shape(step, training.steps, training)
    if is_at_rest(step, training):
        return rate, 0.0
    return rate, base * training.autoencoder_rate * _shape(step, _end(training), training)


def is_at_rest(step: int, training: Training) -> bool:
    """Whether the autoencoder has come to rest by a step counted from 0."""
    return training.autoencoder_end < 1 and step >= _end(training)


def _end(training: Training) -> int:
    return max(1, round(training.autoencoder_end * training.steps))


def _shape(step: int, steps: int, training: Training) -> float:
    rise = min(1.0, (step + 1) / (training.warmup + 1))
    share = min(1.0, step / steps)
    fall = training.final + (1 - training.final) * 0.5 * (1 + math.cos(math.pi * share))
    return rise * fall


def set_rates(optimizer: torch.optim.Optimizer, rates: tuple[float, float]) -> None:
    """Give each group its rate; a group at rest has no weight decay either, since lr scales it."""
    for group, rate in zip(optimizer.param_groups, rates, strict=False):
        group["lr"] = rate
