"""An exponential moving average of the weights, kept in float32."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

__all__ = ["Ema"]


class Ema:
    """Shadow weights of a module.

    A low-precision shadow would never move: at decay 0.999 a step is below one unit in the last
    place of bfloat16.

    Args:
        module: The raw module, not its wrapper.
        decay: Of the average; smaller at first, (1 + i) / (10 + i).
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._names = [name for name, _ in module.named_parameters()]
        self._shadow = [p.detach().float().clone() for p in module.parameters()]

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move towards the module's weights after update number `step`, counted from 0."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            self._shadow, [p.detach().float() for p in module.parameters()], 1 - decay
        )

    def tensors(self) -> dict[str, Tensor]:
        """Name -> shadow weight."""
        return dict(zip(self._names, self._shadow, strict=True))

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over saved shadow weights."""
        for name, shadow in zip(self._names, self._shadow, strict=True):
            shadow.copy_(tensors[name])

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """The module with the averaged weights, for as long as the block lasts."""
        own = [p.detach().clone() for p in module.parameters()]
        self._write(module, self._shadow)
        try:
            yield
        finally:
            self._write(module, own)

    @torch.no_grad()
    def _write(self, module: nn.Module, values: list[Tensor]) -> None:
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.copy_(value)
