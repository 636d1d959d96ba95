"""What `auto` is, by what the device has."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sno_dist.runtime.precision import Precision, dtype_of, has_bf16, settled

CPU = torch.device("cpu")
FLAGS = {"amx_tile", "avx512_bf16"}


def give(monkeypatch: pytest.MonkeyPatch, flag: str | None) -> None:
    """A CPU that has no bf16 but by one kind of instruction."""
    for known in FLAGS:
        monkeypatch.setattr(torch.cpu, f"_is_{known}_supported", lambda own=known: own == flag)


def test_the_processor_is_read_as_the_kernel_reads_it() -> None:
    flags = {*Path("/proc/cpuinfo").read_text().split()}
    assert has_bf16(CPU) == bool(FLAGS & flags)


@pytest.mark.parametrize("flag", sorted(FLAGS))
def test_auto_is_bf16_where_the_device_has_it(monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    give(monkeypatch, flag)
    assert (settled("auto", CPU), dtype_of("auto", CPU)) == ("bf16", torch.bfloat16)


def test_auto_is_fp32_where_bf16_would_be_imitated(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, None)
    assert (settled("auto", CPU), dtype_of("auto", CPU)) == ("fp32", None)
    assert (settled("auto", torch.device("meta")), settled("bf16", CPU)) == ("fp32", "bf16")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_what_is_said_is_kept(precision: Precision) -> None:
    assert settled(precision, CPU) == precision
