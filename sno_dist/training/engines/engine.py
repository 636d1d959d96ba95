"""What training asks of an engine. State leaves and enters whole, so that it fits every other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.training.optim import ClippedAdamW

__all__ = ["Engine"]


class Engine(ABC):
    """The operator spread over ranks, and its optimizer.

    A *piece* is what this rank holds of a weight: all of it where weights are replicated. Lists of
    pieces are in the order of `operator.named_parameters()`.

    Attributes:
        wrapped: What a forward goes through.
        operator: What is wrapped.
        optimizer: The bare optimizer: its groups' rates may be set, its `norm` read.
        scaler: The loss scaler of fp16, if there is one.
    """

    wrapped: nn.Module
    scaler: torch.amp.GradScaler | None = None

    def __init__(self, operator: ScoreNeuralOperator, optimizer: ClippedAdamW) -> None:
        self.operator, self.optimizer = operator, optimizer
        self._names = [name for name, _ in operator.named_parameters()]

    @contextmanager
    def accumulating(self, *, last: bool) -> Iterator[None]:
        """Around each forward and backward of a step; gradients are reduced with the last."""
        del last
        yield

    @abstractmethod
    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradient; inside of `accumulating`."""

    @abstractmethod
    def update(self) -> bool:
        """One optimizer step; returns whether fp16 overflowed and it was skipped.

        Where the gradient is not finite nothing is updated and `optimizer.norm` tells.
        """

    @abstractmethod
    def pieces(self) -> list[Tensor]:
        """The weights as this rank holds them, not copied."""

    @abstractmethod
    def split(self, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        """This rank's pieces of whole tensors, by name. **Collective.**"""

    @abstractmethod
    def whole(self, pieces: Sequence[Tensor]) -> dict[str, Tensor]:
        """Name -> whole tensor, from every rank's pieces. **Collective.**"""

    @abstractmethod
    def moments(self) -> dict[str, Tensor]:
        """The optimizer's state, whole, as "exp_avg/<name>". **Collective.**"""

    @abstractmethod
    def restore(self, moments: Mapping[str, Tensor]) -> None:
        """Take over what `moments` gave, under whichever engine. **Collective.**"""

    def scaler_state(self) -> dict[str, Any]:
        """The loss scaler's; empty where there is none."""
        return self.scaler.state_dict() if self.scaler is not None else {}

    def weights(self) -> dict[str, Tensor]:
        """The operator's whole state: weights and buffers. **Collective.**"""
        buffers = dict(self.operator.named_buffers())
        return {**self.whole(self.pieces()), **{n: b.detach() for n, b in buffers.items()}}
