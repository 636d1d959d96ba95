"""The only place where a process group or an `Accelerator` is built."""

from __future__ import annotations

import atexit
import logging
import os
import warnings
from datetime import timedelta
from functools import lru_cache
from typing import Literal

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import DistributedType

from sno_dist.errors import ConfigError
from sno_dist.runtime import preemption

__all__ = ["Precision", "autocast", "build_accelerator", "device", "start"]

Precision = Literal["fp32", "bf16", "fp16"]
TIMEOUT = timedelta(minutes=60)


@lru_cache(maxsize=1)
def start() -> None:
    """Bring up the process group that `accelerate launch` prepared; do nothing the second time.

    Matrix products are exact float32, not TF32: the Gram matrix and the metrics need their bits.
    """
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=TIMEOUT)
    # gloo's threads abort the interpreter now and then if the group is still up when it ends
    atexit.register(state.destroy_process_group)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    preemption.listen()


def device() -> torch.device:
    """This rank's device."""
    start()
    return torch.device(str(PartialState().device))


def autocast(precision: Precision) -> torch.autocast:
    """The networks' precision outside of training, where no accelerator wraps them."""
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device().type, dtype, enabled=precision != "fp32")


def build_accelerator(precision: Precision) -> Accelerator:
    """The accelerator that wraps the operator in training.

    Args:
        precision: The run config's.

    Raises:
        ConfigError: If the launcher asks for another precision or for gradient accumulation, or
            for an engine that is not data parallel, or for fp16 without a GPU.
    """
    _refuse_conflicts(precision)
    start()
    # Its successor is not among accelerate's settings yet; the old one still does what we want.
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision="no" if precision == "fp32" else precision,
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
        ],
        step_scheduler_with_optimizer=False,
    )
    known = (DistributedType.NO, DistributedType.MULTI_CPU, DistributedType.MULTI_GPU)
    if accelerator.distributed_type not in known:
        raise ConfigError(
            "this engine is not supported",
            where="accelerate launch",
            got=accelerator.distributed_type.value,
            expected="data parallel",
            fix="launch with launch/accelerate/one_machine.yaml",
        )
    return accelerator


def _refuse_conflicts(precision: Precision) -> None:
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if asked not in ("no", precision):
        raise ConfigError(
            "the launcher and the run config disagree on precision",
            where="accelerate --mixed_precision against training.precision",
            got=f"{asked} against {precision}",
            fix="leave precision to the run config",
        )
    accumulate = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if accumulate != "1":
        raise ConfigError(
            "the launcher and the run config disagree on gradient accumulation",
            where="accelerate --gradient_accumulation_steps against training.micro",
            got=f"{accumulate} against 1",
            fix="leave accumulation to training.micro",
        )
    if precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError(
            "fp16 training needs a GPU",
            where="training.precision",
            got="fp16 on a CPU",
            fix="take bf16 or fp32",
        )
