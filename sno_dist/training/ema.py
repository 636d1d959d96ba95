"""An exponential moving average of the weights, kept in float32."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Ema"]


class Ema:
    """Shadows of weights, or of the pieces of them that a rank holds.

    A low-precision shadow would never move: at decay 0.999 a step is below one unit in the last
    place of bfloat16.

    Args:
        weights: To start from.
        decay: Of the average; smaller at first, (1 + i) / (10 + i).

    Attributes:
        shadow: In the order of the weights.
    """

    def __init__(self, weights: Sequence[Tensor], decay: float) -> None:
        self._decay = decay
        self.shadow = [w.detach().float().clone() for w in weights]

    @torch.no_grad()
    def update(self, weights: Sequence[Tensor], step: int) -> None:
        """Move towards the weights after update number `step`, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            self.shadow, [w.detach().float() for w in weights], 1 - decay
        )

    @torch.no_grad()
    def restore(self, shadow: Sequence[Tensor]) -> None:
        """Take over saved shadows."""
        for own, saved in zip(self.shadow, shadow, strict=True):
            own.copy_(saved)
