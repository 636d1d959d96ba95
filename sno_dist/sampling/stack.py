"""Score models of one architecture, their weights stacked, trained side by side.

One vectorised forward and backward serves them all; each has its own data, gradient norm and
average, so none depends on its mates beyond the rounding of products.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from torch.optim import AdamW

from sno_dist.config.schema import Finetuned, Individual, Training
from sno_dist.diffusion.objective import times, weights
from sno_dist.diffusion.schedule import like
from sno_dist.runtime.accelerator import autocast
from sno_dist.runtime.precision import Precision
from sno_dist.score.of_one import ScoreOfOne
from sno_dist.score.preconditioned import PreconditionedScore

__all__ = ["ScoreStack"]


class ScoreStack:
    """G score models that have no use for an embedding: what they are given as u is 0.

    Args:
        models: Of one architecture, on their device; their weights are the initial ones.
        training: The operator's objective and optimisation, but for steps and learning rate.
        individual: Those two.
    """

    def __init__(
        self,
        models: Sequence[PreconditionedScore | ScoreOfOne],
        training: Training,
        individual: Individual | Finetuned,
    ) -> None:
        self._model, self._training, self._individual = models[0], training, individual
        # fp16 needs a loss scale, and one that the stack shared would tie a model to its mates.
        precision: Precision = training.precision
        self._precision: Precision = "fp32" if precision == "fp16" else precision
        self._weights, self._buffers = stack_module_state(list(models))
        self._average = {name: value.detach().clone() for name, value in self._weights.items()}
        self._optimizer = AdamW(
            list(self._weights.values()),
            betas=(0.9, 0.99),
            weight_decay=training.weight_decay,
            fused=True,
        )

    def step(self, number: int, z: Tensor, noise: Tensor, uniform: Tensor) -> Tensor:
        """Do update `number`, counted from 0.

        Args:
            number: Which.
            z: (G, B, Z) standardised latents.
            noise: (G, B, Z) standard normals.
            uniform: (G, B) uniforms on [0, 1), which become times.

        Returns:
            (2, G) on the CPU: losses, and gradient norms before clipping; where one is not
            finite, that model is spoilt.
        """
        losses = self._losses(z, noise, uniform)
        # The fused update takes for granted that a gradient lies in memory as its weight does,
        # which backward sees to and torch.autograd.grad does not.
        losses.sum().backward()
        norms = self._clip()
        self._optimizer.param_groups[0]["lr"] = self._rate(number)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._move_average(number)
        return torch.stack([losses.detach(), norms]).cpu()

    def averaged(self, index: int) -> PreconditionedScore | ScoreOfOne:
        """Model `index` with its averaged weights; a later call changes the same module."""
        state = {**self._average, **self._buffers}
        self._model.load_state_dict({name: value[index] for name, value in state.items()})
        return self._model

    def _losses(self, z: Tensor, noise: Tensor, uniform: Tensor) -> Tensor:
        objective, schedule = self._training.objective, self._model.schedule
        t = times(uniform, schedule, objective.times, objective.log_mean, objective.log_std)
        noised = schedule.alpha(t)[..., None] * z + schedule.sigma(t)[..., None] * noise
        with autocast(self._precision):
            predicted = vmap(self._predict)(self._weights, self._buffers, noised, t)
        miss = (predicted - noise).square().sum(-1)
        return (weights(t, schedule, objective.weight) * miss).mean(1)

    def _predict(
        self, own: Mapping[str, Tensor], buffers: Mapping[str, Tensor], x: Tensor, t: Tensor
    ) -> Tensor:
        state = {**own, **buffers}
        return functional_call(self._model, state, (x.new_zeros(len(x), 1), x, t))

    def _clip(self) -> Tensor:
        """Clip each model's gradient alone; returns the norms before, (G,)."""
        gradients = [w.grad for w in self._weights.values() if w.grad is not None]
        norms = torch.stack([g.reshape(len(g), -1).norm(dim=1) for g in gradients]).norm(dim=0)
        factor = (self._training.clip / (norms + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(like(factor, gradient))
        return norms

    def _rate(self, number: int) -> float:
        """Equation: linear warm-up, then a cosine down to the `final` share, as the operator's.

        A tenth of the steps at most are warm-up, or a short training would never reach the rate.
        """
        training, steps = self._training, self._individual.steps
        rise = min(1.0, (number + 1) / (min(training.warmup, steps // 10) + 1))
        cosine = 0.5 * (1 + math.cos(math.pi * number / steps))
        fall = training.final + (1 - training.final) * cosine
        return self._individual.learning_rate * rise * fall

    @torch.no_grad()
    def _move_average(self, number: int) -> None:
        decay = min(self._training.ema, (1 + number) / (10 + number))
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            list(self._average.values()),
            [weight.detach() for weight in self._weights.values()],
            1 - decay,
        )
