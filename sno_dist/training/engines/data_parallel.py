"""Every rank holds everything; gradients are averaged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext

import torch
from accelerate import Accelerator
from torch import Tensor

from sno_dist.config.schema import Training
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.training.engines.engine import Engine
from sno_dist.training.optim import build_optimizer, moment_keys

__all__ = ["DataParallel"]


class DataParallel(Engine):
    """Torch's data parallelism, or one process alone.

    Args:
        accelerator: Wraps, scales and synchronises.
        operator: With the weights to start from, on its device.
        training: The config's section.
    """

    def __init__(
        self, accelerator: Accelerator, operator: ScoreNeuralOperator, training: Training
    ) -> None:
        super().__init__(operator, build_optimizer(operator, training))
        self._accelerator = accelerator
        self.wrapped, self._optimizer = accelerator.prepare(operator, self.optimizer)
        self.scaler = accelerator.scaler

    @contextmanager
    def accumulating(self, *, last: bool) -> Iterator[None]:
        """Without a reduction but for the last."""
        with nullcontext() if last else self._accelerator.no_sync(self.wrapped):
            yield

    def backward(self, loss: Tensor) -> None:
        """Scaled in fp16."""
        self._accelerator.backward(loss)

    def update(self) -> bool:
        """By the accelerator, whose scaler lowers the scale where it skips.

        The accelerator's own word on it is not for a fused optimizer, which is always called and
        skips by itself.
        """
        before = self.scaler.get_scale() if self.scaler is not None else 0.0
        self._accelerator.unscale_gradients()
        self._optimizer.step()
        self._optimizer.zero_grad()
        return self.scaler is not None and self.scaler.get_scale() < before

    def pieces(self) -> list[Tensor]:
        """The weights themselves."""
        return [p.detach() for p in self.operator.parameters()]

    def split(self, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        """The tensors themselves."""
        return [tensors[name] for name in self._names]

    def whole(self, pieces: Sequence[Tensor]) -> dict[str, Tensor]:
        """The pieces themselves."""
        return dict(zip(self._names, pieces, strict=True))

    def moments(self) -> dict[str, Tensor]:
        """As the optimizer holds them."""
        return {
            f"{key}/{name}": value
            for name, parameter in self.operator.named_parameters()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }

    def restore(self, moments: Mapping[str, Tensor]) -> None:
        """Laid out as the weights are."""
        for name, parameter in self.operator.named_parameters():
            keys = moment_keys(moments, name)
            state = {key: _laid_out(moments[f"{key}/{name}"], parameter) for key in keys}
            if state:
                self.optimizer.state[parameter] = state


def _laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """A state tensor with its weight's memory layout, which the fused update takes for granted."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)
    return torch.empty_like(parameter, dtype=value.dtype).copy_(value).detach()
