"""Where a result comes from: command, code, versions, world and upstream hashes."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from sno_dist.runtime import collectives
from sno_dist.runtime.artifact import write_json
from sno_dist.runtime.progress import say

__all__ = ["PROVENANCE", "describe", "write_provenance"]

PROVENANCE = "provenance.json"
PACKAGES = ("sno-dist", "torch", "accelerate", "webdataset", "numpy", "tensorboard", "deepspeed")


def write_provenance(
    run: Path, upstream: Mapping[str, str], *, precision: str, resumes: bool
) -> None:
    """Write the run's provenance file: of this attempt, and `earlier` those that it goes on from.

    Args:
        run: The run's folder.
        upstream: Artifact -> its digest.
        precision: Of the networks, settled.
        resumes: Whether this attempt goes on from earlier ones.
    """
    path, earlier = run / PROVENANCE, []
    if resumes and path.is_file():
        last = json.loads(path.read_text())
        # attempts of earlier versions do not tell theirs
        if (before := last.get("precision", precision)) != precision:
            say(f"precision: {precision} from here on; {before} before")
        earlier = [*last.pop("earlier", []), last]
    write_json(path, {**describe(upstream), "precision": precision, "earlier": earlier})


def describe(upstream: Mapping[str, str]) -> dict[str, Any]:
    """The provenance as a plain mapping."""
    slurm = {k: v for k, v in os.environ.items() if k in ("SLURM_JOB_ID", "SLURM_JOB_NAME")}
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "git": _git("rev-parse", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "ranks": collectives.world().size,
        "upstream": dict(upstream),
        **({"slurm": slurm} if slurm else {}),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git(*words: str) -> str | None:
    """What git says of the package's own checkout; None where there is none."""
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
