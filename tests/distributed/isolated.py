"""`launch` in a network of its own, whose loopback carries nobody else's bytes.

As a module: `RANKS TARGET TIMEOUT ARGS... -- OPTIONS...`, the launch itself, once inside.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tests.distributed.launch import ROOT, launch

__all__ = ["entry", "isolated_launch"]

UP = 'ip link set lo up && exec "$@"'
WAYS = (["unshare", "--net"], ["unshare", "--net", "--map-root-user"])


@cache
def entry() -> list[str]:
    """What to put before a command so that it runs there; empty where that is not permitted."""
    if shutil.which("unshare") is None:
        return []
    for way in WAYS:
        inside = [*way, "sh", "-c", UP, "sh"]
        if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode == 0:
            return inside
    return []


def isolated_launch(
    nprocs: int, target: str | Path, *args: object, timeout: float, options: Sequence[str]
) -> subprocess.CompletedProcess[str]:
    """As `launch`, in a network of its own where `entry` has a way, else in this one."""
    if not entry():
        return launch(nprocs, target, *args, timeout=timeout, options=options)
    words = [str(nprocs), str(target), str(timeout), *map(str, args), "--", *options]
    command = [*entry(), sys.executable, "-m", "tests.distributed.isolated", *words]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def main(words: Sequence[str]) -> int:
    """Launch, and hand on what the launch says."""
    nprocs, target, timeout, *rest = words
    cut = rest.index("--")
    done = launch(int(nprocs), target, *rest[:cut], timeout=float(timeout), options=rest[cut + 1 :])
    sys.stdout.write(done.stdout)
    sys.stderr.write(done.stderr)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
