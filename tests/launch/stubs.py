"""Slurm's commands and accelerate as scripts that write down how they were called."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Checkout"]

ROOT = Path(__file__).resolve().parents[2]
RECORD = 'printf "%s\\0" "$@" >>"$CALLS/$(basename "$0").$((++calls))"'
STUBS = {
    # both nodes, one after the other; the highest code, as from the real one
    "srun": """
        while [[ $1 == --* ]]; do shift; done
        for SLURM_NODEID in 0 1; do
          export SLURM_NODEID
          "$@" || { last=$?; ((last > code)) && code=$last; }
        done
        exit "${code:-0}"
    """,
    "scontrol": """
        case "$1 $2" in
          "show hostnames") [[ -n $3 ]] && printf "%s\\n" a7 a8 ;;
          "show node")
            [[ ${PRIVATE-} ]] && exit 1
            echo "NodeName=$3 NodeAddr=10.0.0.7 NodeHostName=$3 Port=6818"
            ;;
          "show job") echo "JobId=$3 StartTime=Unknown EndTime=${END:-Unknown} Deadline=N/A" ;;
        esac
        exit 0
    """,
    "sbatch": 'echo "$((100 + calls));cluster"',
    "accelerate": """
        trap 'echo heard TERM; exit "${CODE_AFTER_TERM:-1}"' TERM
        if [[ ${LINGER-} ]]; then
          touch "$CALLS/lingers.$SLURM_NODEID"
          while :; do sleep 0.05; done
        fi
        exit "${CODE:-0}"
    """,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkout:
    """A copy of `launch/` to run scripts in.

    Args:
        root: The folder that holds it.
    """

    root: Path

    @classmethod
    def make(cls, root: Path, stubs: Iterable[str] = STUBS) -> Checkout:
        """Copy the scripts, and make commands that they call."""
        shutil.copytree(ROOT / "launch", root / "launch", ignore=lambda *_: {"site.env"})
        for folder in ("bin", "calls"):
            (root / folder).mkdir()
        for name in stubs:
            path = root / "bin" / name
            path.write_text(
                f"#!/usr/bin/env bash\ncalls=$(ls $CALLS | wc -l)\n{RECORD}\n{STUBS[name]}\n"
            )
            path.chmod(0o755)
        return cls(root=root)

    def environment(self, extra: Mapping[str, str]) -> dict[str, str]:
        """What a job's scripts see: two nodes, no GPUs."""
        kept = {name: value for name, value in os.environ.items() if "SLURM" not in name}
        kept.pop("RANKS_PER_NODE", None)
        return {
            **kept,
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "CALLS": str(self.root / "calls"),
            "SLURM_JOB_ID": "70001",
            "SLURM_JOB_NODELIST": "a[7-8]",
            "SLURM_NNODES": "2",
            **extra,
        }

    def run(self, script: str, *words: str, **extra: str) -> subprocess.CompletedProcess[str]:
        """Run a script of `launch/slurm` and wait for it."""
        return subprocess.run(
            ["bash", f"launch/slurm/{script}", *words],
            cwd=self.root,
            env=self.environment(extra),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def start(self, script: str, *words: str, **extra: str) -> subprocess.Popen[str]:
        """Start a script of `launch/slurm`."""
        return subprocess.Popen(
            ["bash", f"launch/slurm/{script}", *words],
            cwd=self.root,
            env=self.environment(extra),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def calls(self, command: str) -> list[list[str]]:
        """The words of each call of a command, in order."""
        files = sorted(
            (self.root / "calls").glob(f"{command}.*"), key=lambda path: int(path.suffix[1:])
        )
        return [path.read_text().split("\0")[:-1] for path in files]
