"""What networks multiply in: a config's precision, as it is meant on a device."""

from __future__ import annotations

from typing import Literal

import torch

__all__ = ["Precision", "dtype_of", "has_bf16", "settled"]

Precision = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def has_bf16(device: torch.device) -> bool:
    """Whether a device multiplies in bfloat16 itself; where that is imitated, float32 is faster."""
    match device.type:
        case "cuda":
            return torch.cuda.is_bf16_supported(including_emulation=False)
        case "cpu":
            return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
        case _:
            return False


def settled(precision: Precision, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """A precision with `auto` settled: bf16 where the device has it, else fp32."""
    if precision != "auto":
        return precision
    return "bf16" if has_bf16(device) else "fp32"


def dtype_of(precision: Precision, device: torch.device) -> torch.dtype | None:
    """What matrix products are computed in; None: what the weights are."""
    return DTYPES[settled(precision, device)]
