"""What the benchmarks share: where and on which commit a figure was taken, and handing it on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch

__all__ = ["finish", "machine"]


def _commit() -> str | None:
    """The commit of this checkout, marked where tracked files differ from it."""
    command = ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


COMMIT = _commit()
"""As the program starts: a long one may see others come."""


def machine() -> dict[str, Any]:
    """The machine, the commit and the versions that a figure depends on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "commit": COMMIT,
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        # Above the number of cores, others were busy here, and the figures are worth less.
        "load": round(os.getloadavg()[0], 2),
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def finish(result: dict[str, Any], out: Path | None) -> None:
    """Print a result as one JSON line, and write it where it was asked for."""
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
