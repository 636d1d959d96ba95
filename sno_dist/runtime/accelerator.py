"""The only place where a process group or an `Accelerator` is built."""

from __future__ import annotations

import atexit
import logging
import os
import warnings
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from typing import Any, Literal

import torch
from accelerate import Accelerator, DeepSpeedPlugin, DistributedDataParallelKwargs, PartialState

from sno_dist.errors import ConfigError
from sno_dist.runtime import collectives
from sno_dist.runtime.launcher import launcher_watched
from sno_dist.runtime.precision import Precision, dtype_of, has_bf16, settled
from sno_dist.runtime.progress import say

__all__ = [
    "EngineName",
    "autocast",
    "build_accelerator",
    "check_launcher",
    "device",
    "engine_name",
    "leave",
    "splits_weights",
    "start",
]

EngineName = Literal["data_parallel", "deepspeed", "fsdp"]
TIMEOUT = "SNO_DIST_TIMEOUT"
"""Seconds that a rank waits for the others before it ends; rank 0 trains the judge alone."""
PATIENCE = 3600.0

WHOLE = 10**15
"""Entries, more than any rank holds."""

OURS = {
    "train_batch_size": (None, "training.distributions"),
    "train_micro_batch_size_per_gpu": (None, "training.micro"),
    "gradient_accumulation_steps": (1, "training.micro"),
    "gradient_clipping": (0, "training.clip"),
    "bf16": (None, "training.precision"),
    "fp16": (None, "training.precision"),
    "optimizer": (None, "training.learning_rate"),
    "scheduler": (None, "training.warmup and training.final"),
}
"""Keys of a DeepSpeed file that the run config decides: what they may say, and who decides."""

SHARDED = {
    "FSDP_VERSION": "2",
    "FSDP_SHARDING_STRATEGY": "full_shard",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_FORWARD_PREFETCH": "false",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
    "FSDP_ACTIVATION_CHECKPOINTING_OFFLOAD": "false",
    "FSDP_AUTO_WRAP_POLICY": "no_wrap",
    "FSDP_IGNORED_MODULES": "",
    "FSDP_STATE_DICT_TYPE": "full_state_dict",
}
"""What accelerate hands on of its FSDP options, and what the fully sharded engine does of them.

Those that are on where nobody asked (`CPU_RAM_EFFICIENT_LOADING`, ...) mean nothing to FSDP 2.
"""

SLOW = {
    "auto": "fp32, since this device has no bf16 of its own",
    "bf16": "bf16, which this device imitates; training.precision=fp32 would be faster",
}
"""What a user is told where the device has no bf16."""


def engine_name() -> EngineName:
    """How `accelerate launch` was asked to spread training over the ranks."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true":
        return "deepspeed"
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true":
        return "fsdp"
    return "data_parallel"


def splits_weights() -> bool:
    """Whether the engine asked for gathers each weight for a pass and gives it back after."""
    match engine_name():
        case "deepspeed":
            return DeepSpeedPlugin().deepspeed_config["zero_optimization"]["stage"] == 3
        case "fsdp":
            return True
        case "data_parallel":
            return False


@lru_cache(maxsize=1)
def start() -> None:
    """Bring up the process group that `accelerate launch` prepared; do nothing the second time.

    Matrix products are exact float32, not TF32: the Gram matrix and the metrics need their bits.
    """
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
    if engine_name() == "deepspeed":
        _quieten_deepspeed()
    _check_devices()
    patience = _patience()
    with launcher_watched(), collectives.in_contact(_meeting(patience)):
        state = PartialState(timeout=patience, **_place())
    if "nccl" not in (state.backend or ""):
        # gloo's threads abort the interpreter now and then if the group is still up when it ends;
        # NCCL's end waits for ranks that may be waiting for this one, see `leave`
        atexit.register(state.destroy_process_group)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    say(_told(state))


def _told(state: PartialState) -> str:
    """What a person wants to know of where a run is."""
    where, ranks = torch.device(str(state.device)), state.num_processes
    place = where.type
    if place == "cuda":
        place += f", {torch.cuda.get_device_name(where)}"
    if (engine := engine_name()) != "data_parallel":
        place += f", {engine}"
    return f"{ranks} {'rank' if ranks == 1 else 'ranks'} on {place}"


def _meeting(patience: timedelta) -> str:
    """What a rank waits for as it starts."""
    ranks, host, port = (
        os.environ.get(name, "?") for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    )
    within = f"{patience.total_seconds():g} s ({TIMEOUT})"
    return f"the start, when {ranks} ranks meet at {host}:{port} within {within}"


def leave() -> None:
    """Take the process group down where all ranks have come to their end. **Collective.**"""
    PartialState().destroy_process_group()


def _check_devices() -> None:
    """Refuse more ranks than GPUs, and GPUs that Slurm gave and torch does not see.

    Raises:
        ConfigError: With both numbers.
    """
    ranks, found = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.cuda.device_count()
    if 0 < found < ranks:
        raise ConfigError(
            "two ranks cannot share a GPU",
            where="accelerate launch --num_processes",
            got=f"{ranks} ranks on this machine with {found} GPUs",
            fix=f"start {found} here, or hide the GPUs by CUDA_VISIBLE_DEVICES=",
        )
    given = os.environ.get("SLURM_GPUS_ON_NODE", "0")
    if not found and given not in ("", "0") and os.environ.get("CUDA_VISIBLE_DEVICES") != "":
        raise ConfigError(
            "this node's GPUs are not usable",
            where="torch.cuda.is_available()",
            got=f"no GPU, where Slurm gave {given}",
            fix="install a torch that is built for the driver, or set CUDA_VISIBLE_DEVICES= to "
            "run on the CPU",
        )


def _patience() -> timedelta:
    told = os.environ.get(TIMEOUT, str(PATIENCE))
    try:
        return timedelta(seconds=float(told))
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            "not a number of seconds", where=f"environment, {TIMEOUT}", got=told
        ) from error


def _place() -> dict[str, Any]:
    """Where accelerate is to work. With cpu=True it would not hand over to DeepSpeed."""
    if torch.cuda.is_available():
        return {"cpu": False}
    return {"backend": "gloo"} if engine_name() == "deepspeed" else {"cpu": True}


def _quieten_deepspeed() -> None:
    """No compiler and no notes to its own developers in a user's terminal."""
    import deepspeed.ops

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", r"`torch.distributed.\w+` is deprecated", FutureWarning)
    if not torch.cuda.is_available():
        # It would compile a shared-memory all-reduce for minutes; gloo has one.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def device() -> torch.device:
    """This rank's device."""
    start()
    return torch.device(str(PartialState().device))


def autocast(precision: Precision) -> torch.autocast:
    """The networks' precision outside of a training step."""
    dtype = dtype_of(precision, device())
    return torch.autocast(device().type, dtype or torch.bfloat16, enabled=dtype is not None)


def build_accelerator(precision: Precision) -> Accelerator:
    """The accelerator of a training run.

    It scales the loss in fp16; the cast to bf16 is the operator's own, the same in every engine.

    Args:
        precision: The run config's.

    Raises:
        ConfigError: As `check_launcher`.
    """
    start()
    check_launcher(precision)
    if not has_bf16(device()) and precision in SLOW:
        say(f"precision: {SLOW[precision]}")
    # Its successor is not among accelerate's settings yet; the old one still does what we want.
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    place = _place()
    accelerator = Accelerator(
        cpu=place.get("cpu", False),
        mixed_precision="fp16" if precision == "fp16" else "no",
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
        ],
        step_scheduler_with_optimizer=False,
    )
    if (plugin := accelerator.state.deepspeed_plugin) is not None:
        _adopt(plugin.deepspeed_config)
    return accelerator


def _adopt(settings: dict[str, Any]) -> None:
    """Say in a DeepSpeed file's place what the run config decides."""
    if settings["zero_optimization"]["stage"] == 3:
        # The optimizer would be called once for each sub-group, and clip each by itself.
        settings["zero_optimization"]["sub_group_size"] = WHOLE
    # A batch's samples are counted in distributions, and ranks may hold different numbers of them.
    settings |= {
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 0.0,
        "train_micro_batch_size_per_gpu": 1,
    }


def check_launcher(precision: Precision) -> None:
    """Refuse a launcher that asks for what the run config decides, or for what no engine does.

    Args:
        precision: The run config's.

    Raises:
        ConfigError: If it asks for another precision, for gradient accumulation, for fp16 where
            that cannot be, or for what an engine would silently leave out.
    """
    _check_precision(precision)
    accumulate = os.environ.get("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")
    if accumulate != "1":
        raise ConfigError(
            "the launcher and the run config disagree on gradient accumulation",
            where="accelerate --gradient_accumulation_steps against training.micro",
            got=f"{accumulate} against 1",
            fix="leave accumulation to training.micro",
        )
    match engine_name():
        case "deepspeed":
            _check_zero(DeepSpeedPlugin().deepspeed_config)
        case "fsdp":
            _check_sharding()
        case "data_parallel":
            pass


def _check_precision(precision: Precision) -> None:
    asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    here = settled(precision, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    if asked not in ("no", here):
        raise ConfigError(
            "the launcher and the run config disagree on precision",
            where="accelerate --mixed_precision against training.precision",
            got=f"{asked} against {here}" + (", by auto" if precision == "auto" else ""),
            fix="leave precision to the run config",
        )
    if precision == "fp16" and not torch.cuda.is_available():
        raise ConfigError(
            "fp16 training needs a GPU",
            where="training.precision",
            got="fp16 on a CPU",
            fix="take bf16 or fp32",
        )
    if precision == "fp16" and engine_name() != "data_parallel":
        raise ConfigError(
            "the loss scaler of fp16 does not know of shared gradients",
            where="training.precision",
            got=f"fp16 under {engine_name()}",
            fix="take bf16, or launch data parallel",
        )


def _check_zero(settings: Mapping[str, Any]) -> None:
    for key, (allowed, decides) in OURS.items():
        found = settings.get(key, allowed)
        if isinstance(found, dict) and found.get("enabled") in (False, "auto"):
            continue
        if found not in (allowed, "auto"):
            raise ConfigError(
                "the DeepSpeed file decides what the run config decides",
                where=f"{key} against {decides}",
                got=found,
                fix=f"take {key} out of the DeepSpeed file",
            )
    stage = settings.get("zero_optimization", {}).get("stage")
    if stage not in (1, 2, 3):
        raise ConfigError(
            "this ZeRO stage shares nothing",
            where="zero_optimization.stage",
            got=stage,
            expected="1, 2 or 3",
            fix="launch with launch/accelerate/one_machine.yaml for plain data parallelism",
        )


def _check_sharding() -> None:
    for name, done in SHARDED.items():
        asked = os.environ.get(name, done)
        if asked.lower() != done:
            raise ConfigError(
                "the fully sharded engine does not do this",
                where=f"accelerate --{name.lower()}",
                got=asked,
                expected=done or "none",
                fix="take it out of the launcher's file; launch/accelerate/fsdp2.yaml is enough",
            )
