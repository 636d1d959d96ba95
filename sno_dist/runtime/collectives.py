"""The only place that calls `torch.distributed`.

Every function works in a plain process too, where the world has size one. A rank that loses the
others gets a `RunError` that names the phase, instead of a backend's traceback.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sno_dist.errors import RunError, SnoError
from sno_dist.runtime.workers import is_worker_loss
from sno_dist.runtime.world import World

__all__ = [
    "any_rank",
    "barrier",
    "broadcast",
    "from_main",
    "gather",
    "gather_on_main",
    "gather_tensors",
    "in_contact",
    "sum_over_ranks",
    "world",
]

T = TypeVar("T")


def _is_up() -> bool:
    return dist.is_available() and dist.is_initialized()


def world() -> World:
    """This process's place in the process group, or a world of one where there is none."""
    if not _is_up():
        return World()
    return World(rank=dist.get_rank(), size=dist.get_world_size())


def sum_over_ranks(values: Tensor, phase: str) -> Tensor:
    """Sum `values` over the ranks; every rank gets the sum, on the device that `values` is on.

    Bitwise equal for every world size where each entry is non-zero on at most one rank, since
    adding zeros is exact: let the owner fill its slots and the others hold zeros.

    **Collective.**
    """
    if not _is_up():
        return values
    with _named(phase):
        wire = values.to(_wire_device(), copy=True)
        dist.all_reduce(wire)
        return wire.to(values.device)


def any_rank(flag: bool, phase: str) -> bool:
    """Whether any rank raised `flag`. **Collective.**"""
    return bool(sum_over_ranks(torch.tensor(int(flag)), phase).item())


def broadcast(value: T, phase: str) -> T:
    """Rank 0's `value` (a plain Python object or a tensor), on every rank. **Collective.**"""
    if not _is_up():
        return value
    with _named(phase):
        box = [value]
        dist.broadcast_object_list(box, src=0, device=_wire_device())
        return box[0]


def from_main(make: Callable[[], T], phase: str) -> T:
    """What rank 0 makes, on every rank; its error too, or it would be taken for lost.

    **Collective.**
    """
    made: Any = None
    refused: SnoError | None = None
    if world().is_main:
        try:
            made = make()
        except SnoError as error:
            refused = error
    made, refused = broadcast((made, refused), phase)
    if refused is not None:
        raise refused
    return made


def gather(value: T, phase: str) -> list[T]:
    """Every rank's `value`, in rank order, on every rank. **Collective.**"""
    if not _is_up():
        return [value]
    with _named(phase):
        values: list[T | None] = [None] * dist.get_world_size()
        dist.all_gather_object(values, value)
        return values  # pyright: ignore[reportReturnType]


def gather_on_main(value: T, phase: str) -> list[T]:
    """Every rank's `value`, in rank order, on rank 0; nothing on the others. **Collective.**"""
    if not _is_up():
        return [value]
    main = world().is_main
    with _named(phase):
        values: list[T | None] = [None] * dist.get_world_size() if main else []
        dist.gather_object(value, values if main else None)
        return values  # pyright: ignore[reportReturnType]


def gather_tensors(value: Tensor, phase: str) -> list[Tensor]:
    """Every rank's tensor, all of one shape, in rank order. **Collective.**"""
    if not _is_up():
        return [value]
    with _named(phase):
        wire = value.to(_wire_device()).contiguous()
        values = [torch.empty_like(wire) for _ in range(dist.get_world_size())]
        dist.all_gather(values, wire)
        return [found.to(value.device) for found in values]


def barrier(phase: str) -> None:
    """Wait until every rank is here. **Collective.**"""
    any_rank(False, phase)


@contextmanager
def in_contact(phase: str) -> Iterator[None]:
    """For code that talks to other ranks by itself: tell of a lost one as the functions here do.

    Any other error passes. Gloo has no error type of its own, but names itself in the message.

    Raises:
        RunError: Naming the phase, if a rank was lost or, while the ranks still meet, never came.
    """
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        with _named(phase):
            raise


def _wire_device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


@contextmanager
def _named(phase: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if is_worker_loss(error) or isinstance(error, torch.OutOfMemoryError):
            raise
        # NCCL tells its reason last
        lines = [line.strip()[:160] for line in str(error).splitlines() if line.strip()]
        rank = world().rank if _is_up() else os.environ.get("RANK", "0")
        raise RunError(
            f"rank {rank} lost contact with another rank during {phase}",
            got=" ... ".join(dict.fromkeys([lines[0], lines[-1]])) if lines else None,
            fix="read the other ranks' messages; then run the same command to resume",
        ) from error
