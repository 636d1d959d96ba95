"""Fully sharded data parallelism: every rank holds a share of each weight and of its moments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from sno_dist.config.schema import Training
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.nn.tokens import TokenBlock
from sno_dist.runtime import collectives
from sno_dist.training.engines.engine import Engine
from sno_dist.training.optim import build_optimizer, moment_keys

__all__ = ["FullySharded"]


class FullySharded(Engine):
    """Torch's `fully_shard`: a unit for each token block, and one for the rest.

    It is called here and not by accelerate, which shards on GPUs alone.

    Args:
        operator: With the weights to start from, on its device.
        training: The config's section.
    """

    wrapped: FSDPModule  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(self, operator: ScoreNeuralOperator, training: Training) -> None:
        # a shard is a run of rows, which needs them to lie one after the other
        operator.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        mesh = init_device_mesh(operator.null.device.type, (collectives.world().size,))
        for block in (m for m in operator.modules() if isinstance(m, TokenBlock)):
            fully_shard(block, mesh=mesh)
        fully_shard(operator, mesh=mesh)
        super().__init__(operator, build_optimizer(operator, training, sharded=True))
        self.wrapped = operator  # pyright: ignore[reportAttributeAccessIssue]

    @contextmanager
    def accumulating(self, *, last: bool) -> Iterator[None]:
        """Without a reduction but for the last."""
        self.wrapped.set_requires_gradient_sync(last)
        yield

    def backward(self, loss: Tensor) -> None:
        """Torch's own."""
        loss.backward()

    def update(self) -> bool:
        """Each rank its share."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        return False

    def pieces(self) -> list[Tensor]:
        """The local shards."""
        return [p.to_local().detach() for p in self._sharded()]

    def split(self, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        """Cut as the weights are; every rank holds the whole, so nothing is sent."""
        return [
            _cut(tensors[name], p).to_local()
            for name, p in zip(self._names, self._sharded(), strict=True)
        ]

    def whole(self, pieces: Sequence[Tensor]) -> dict[str, Tensor]:
        """All-gathered."""
        return {
            name: _joined(piece, p)
            for name, piece, p in zip(self._names, pieces, self._sharded(), strict=True)
        }

    def moments(self) -> dict[str, Tensor]:
        """All-gathered, but for what is a number already."""
        return {
            f"{key}/{name}": value.full_tensor() if isinstance(value, DTensor) else value
            for name, parameter in self.operator.named_parameters()
            for key, value in self.optimizer.state.get(parameter, {}).items()
        }

    def restore(self, moments: Mapping[str, Tensor]) -> None:
        """Cut as the weights are."""
        for name, p in zip(self._names, self._sharded(), strict=True):
            state = {key: moments[f"{key}/{name}"] for key in moment_keys(moments, name)}
            if state:
                self.optimizer.state[p] = {
                    key: _cut(value, p) if value.shape == p.shape else value.to(p.device)
                    for key, value in state.items()
                }

    def _sharded(self) -> list[DTensor]:
        return [p for p in self.operator.parameters() if isinstance(p, DTensor)]


def _cut(value: Tensor, like: DTensor) -> DTensor:
    value = value.detach().to(like.device, copy=True)
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def _joined(piece: Tensor, like: DTensor) -> Tensor:
    return DTensor.from_local(
        piece,
        like.device_mesh,
        like.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    ).full_tensor()
