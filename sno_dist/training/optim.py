"""The optimizer, its two parameter groups and their learning rates."""

from __future__ import annotations

import math

import torch
from torch.optim import AdamW

from sno_dist.config.schema import Training
from sno_dist.model.operator import ScoreNeuralOperator

__all__ = ["build_optimizer", "learning_rates", "set_rates"]


def build_optimizer(operator: ScoreNeuralOperator, training: Training) -> AdamW:
    """AdamW over two groups: the autoencoder, and the rest."""
    autoencoder = list(operator.autoencoder.parameters())
    known = {id(parameter) for parameter in autoencoder}
    rest = [p for p in operator.parameters() if id(p) not in known]
    groups = [{"params": rest}] + ([{"params": autoencoder}] if autoencoder else [])
    return AdamW(
        groups,
        lr=training.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=training.weight_decay,
        fused=True,
    )


def learning_rates(step: int, training: Training) -> tuple[float, float]:
    """Rates of the score and embedding, and of the autoencoder, at a step counted from 0.

    Equation: linear warm-up, then a cosine down to the `final` share; the autoencoder comes to
    rest after its own share of the steps, so that the latent stands still for what follows.
    """
    base = training.learning_rate
    end = max(1, round(training.autoencoder_end * training.steps))
    rate = base * _shape(step, training.steps, training)
    if step >= end and training.autoencoder_end < 1:
        return rate, 0.0
    return rate, base * training.autoencoder_rate * _shape(step, end, training)


def _shape(step: int, steps: int, training: Training) -> float:
    rise = min(1.0, (step + 1) / (training.warmup + 1))
    share = min(1.0, step / steps)
    fall = training.final + (1 - training.final) * 0.5 * (1 + math.cos(math.pi * share))
    return rise * fall


def set_rates(optimizer: torch.optim.Optimizer, rates: tuple[float, float]) -> None:
    """Give each group its rate; a group at rest has no weight decay either, since lr scales it."""
    for group, rate in zip(optimizer.param_groups, rates, strict=False):
        group["lr"] = rate
