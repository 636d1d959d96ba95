"""Adaptive Runge-Kutta with a step of its own for every sample.

A shared step would make a sample depend on its batch mates, hence on how work is dealt to ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from sno_dist.errors import RunError

__all__ = ["integrate"]

# Dormand & Prince (1980), the 5(4) pair.
_NODES = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_MATRIX = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_ERROR = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)


def integrate(
    field: Callable[[Tensor, Tensor], Tensor],
    y: Tensor,
    start: float,
    end: float,
    *,
    tolerance: float,
    limit: int = 10_000,
) -> Tensor:
    """Solve dy/dt = field(y, t) from `start` to `end`, in either direction.

    Args:
        field: (N, M) states and (N,) times to (N, M).
        y: (N, M) states at `start`.
        start: First time.
        end: Last time.
        tolerance: Relative and absolute, per sample in the root-mean-square norm.
        limit: Most attempted steps.

    Returns:
        (N, M) states at `end`.

    Raises:
        RunError: If a sample has not arrived after `limit` steps, or its step has shrunk to nought.

    Cost: 6 evaluations of `field` an accepted or refused step, for all samples at once.
    """
    sign = 1.0 if end > start else -1.0
    t = torch.full_like(y[:, 0], start)
    step = torch.full_like(t, 0.01 * abs(end - start))
    slope = field(y, t)
    for _ in range(limit):
        left = (end - t).abs()
        if not bool((left > 0).any()):
            return y
        step = torch.minimum(step, left)
        trial, new_slope, error = _attempt(field, y, t, slope, sign * step)
        scale = tolerance * (1 + torch.maximum(y.abs(), trial.abs()))
        # A step that leads to where the field is not finite was too long.
        ratio = (error / scale).square().mean(1).sqrt().nan_to_num(nan=math.inf)
        accept = ratio <= 1
        arrived = accept & (step >= left)
        t = torch.where(arrived, torch.full_like(t, end), torch.where(accept, t + sign * step, t))
        y = torch.where(accept[:, None], trial, y)
        slope = torch.where(accept[:, None], new_slope, slope)
        step = step * (0.9 * ratio.clamp_min(1e-8) ** -0.2).clamp(0.2, 5.0)
        stuck = (t != end) & (t + sign * step == t)
        if bool(stuck.any()):
            raise RunError(
                "the adaptive solver stands still: what it integrates is not finite, or too steep",
                got=f"t = {t[stuck].tolist()[:4]}",
                expected=f"t = {end}",
                fix="loosen sampling.tolerance, lower sampling.guidance, or choose another solver",
            )
    raise RunError(
        "the adaptive solver did not arrive",
        got=f"t = {t[t != end].tolist()[:4]} after {limit} steps",
        expected=f"t = {end}",
        fix="loosen sampling.tolerance",
    )


def _attempt(
    field: Callable[[Tensor, Tensor], Tensor], y: Tensor, t: Tensor, slope: Tensor, step: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    slopes = [slope]
    trial = y
    for node, row in zip(_NODES[1:], _MATRIX[1:], strict=True):
        change = sum(weight * k for weight, k in zip(row, slopes, strict=True) if weight)
        trial = y + step[:, None] * change
        slopes.append(field(trial, t + node * step))
    error = step[:, None] * sum(w * k for w, k in zip(_ERROR, slopes, strict=True) if w)
    assert isinstance(error, Tensor)
    return trial, slopes[-1], error
