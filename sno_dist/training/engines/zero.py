"""DeepSpeed's ZeRO: ranks share the moments (1), the gradients too (2), the weights too (3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from sno_dist.config.schema import Training
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime import collectives
from sno_dist.training.engines.engine import Engine
from sno_dist.training.optim import build_optimizer

__all__ = ["Zero"]

MOMENTS = ("exp_avg", "exp_avg_sq")


class Zero(Engine):
    """A DeepSpeed engine whose numerics are ours: float32 weights, our clipping, our autocast.

    Args:
        accelerator: Launched with DeepSpeed.
        operator: With the weights to start from, on its device.
        training: The config's section.
    """

    wrapped: Any

    def __init__(
        self, accelerator: Accelerator, operator: ScoreNeuralOperator, training: Training
    ) -> None:
        # DeepSpeed lays weights end to end, which needs each to be one run of numbers
        operator.to(memory_format=torch.contiguous_format)  # pyright: ignore[reportCallIssue]
        super().__init__(operator, build_optimizer(operator, training, sharded=True))
        self.wrapped, _ = accelerator.prepare(operator, self.optimizer)
        self._sharer = self.wrapped.optimizer
        self._splits_weights = self.wrapped.zero_optimization_stage() == 3
        self._start_moments()

    @contextmanager
    def accumulating(self, *, last: bool) -> Iterator[None]:
        """DeepSpeed is told which backward ends the step."""
        self.wrapped.set_gradient_accumulation_boundary(is_boundary=last)
        yield

    def backward(self, loss: Tensor) -> None:
        """DeepSpeed's."""
        self.wrapped.backward(loss)

    def update(self) -> bool:
        """DeepSpeed's, which clears the gradients."""
        self.wrapped.step()
        return False

    def pieces(self) -> list[Tensor]:
        """The weights, or in stage 3 this rank's run of each."""
        if not self._splits_weights:
            return [p.detach() for p in self.operator.parameters()]
        return [p.ds_tensor.detach() for p in self._shared()]

    def split(self, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        """The tensors themselves, or in stage 3 this rank's run of each."""
        if not self._splits_weights:
            return [tensors[name] for name in self._names]
        return [
            _run(tensors[name], p.ds_tensor.numel())
            for name, p in zip(self._names, self._shared(), strict=True)
        ]

    def whole(self, pieces: Sequence[Tensor]) -> dict[str, Tensor]:
        """The pieces themselves, or in stage 3 all ranks' laid end to end."""
        if not self._splits_weights:
            return dict(zip(self._names, pieces, strict=True))
        found = {}
        for name, piece, p in zip(self._names, pieces, self._shared(), strict=True):
            runs = collectives.gather_tensors(piece, f"collecting {name}")
            found[name] = torch.cat(runs)[: p.ds_numel].view(p.ds_shape)
        return found

    def moments(self) -> dict[str, Tensor]:
        """Collected by DeepSpeed."""
        step = next(iter(self.optimizer.state.values()))["step"]
        found: dict[str, Tensor] = {}
        for name, parameter in self.operator.named_parameters():
            found[f"step/{name}"] = step.clone()
            for key in MOMENTS:
                found[f"{key}/{name}"] = _collected(parameter, key)
        return found

    def restore(self, moments: Mapping[str, Tensor]) -> None:
        """Handed to DeepSpeed, weight by weight."""
        device = self.operator.null.device
        for key in MOMENTS:
            values = {name: moments[f"{key}/{name}"].to(device) for name in self._names}
            for piece, parameter in zip(self.split(values), self._shared(), strict=True):
                self._set_moment(parameter, piece.contiguous(), key)
        for state in self.optimizer.state.values():
            state["step"].copy_(moments[f"step/{self._names[0]}"])

    def _set_moment(self, parameter: Tensor, piece: Tensor, key: str) -> None:
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        if self._splits_weights:
            # the whole would do too, but not where ranks do not divide it
            safe_set_local_optimizer_state(parameter, piece, key)
        else:
            safe_set_full_optimizer_state(parameter, piece, key)

    def _shared(self) -> list[Any]:
        """The weights with what stage 3 has put on them."""
        return list(self.operator.parameters())

    def _start_moments(self) -> None:
        """Make the moments, which else come with the first step, too late to be restored."""
        for flat in self._flat_weights():
            self.optimizer.state[flat] = {
                # where the fused update looks for it
                "step": torch.zeros((), dtype=torch.float32, device=flat.device),
                **{key: torch.zeros_like(flat) for key in MOMENTS},
            }
        if not self._splits_weights:
            self._sharer._lazy_init_hp_params_optimizer_state()

    def _flat_weights(self) -> list[Tensor]:
        if self._splits_weights:
            return self._sharer.fp32_partitioned_groups_flat
        return self._sharer.single_partition_of_fp32_groups


def _collected(parameter: Tensor, key: str) -> Tensor:
    from deepspeed.utils import safe_get_full_optimizer_state

    value = safe_get_full_optimizer_state(parameter, key)
    assert value is not None, "every weight has its moments"
    return value


def _run(value: Tensor, size: int) -> Tensor:
    """This rank's run of a tensor that is padded to the same size on every rank."""
    world = collectives.world()
    padded = value.new_zeros(size * world.size)
    padded[: value.numel()] = value.flatten()
    return padded[world.rank * size : (world.rank + 1) * size]
