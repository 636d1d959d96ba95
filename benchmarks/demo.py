"""`make demo` as a newcomer runs it: a fresh clone, a fresh environment, the clock running.

python -m benchmarks.demo --out benchmarks/results/demo.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import finish, machine

ROOT = Path(__file__).resolve().parents[1]


def run(folder: Path) -> dict[str, Any]:
    """Clone, run the demo, and read what it left."""
    subprocess.run(["git", "clone", "--quiet", ROOT, folder], check=True)
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    began = time.monotonic()
    environment = subprocess.run(["make", ".venv/.ready"], cwd=folder, env=inherited, check=False)
    installed = time.monotonic()
    demo = subprocess.run(["make", "demo"], cwd=folder, env=inherited, check=False)
    ended = time.monotonic()
    if environment.returncode or demo.returncode:
        sys.exit(f"the demo failed: {environment.returncode}, {demo.returncode}")
    evaluation = folder / "runs/digits/evaluation"
    log = (folder / "runs/digits/logs/rank-00000.jsonl").read_text().splitlines()
    waits = [json.loads(line)["speed/data_wait"] for line in log if "data_wait" in line]
    return {
        "seconds": {
            "install": round(installed - began, 1),
            "demo": round(ended - installed, 1),
            "total": round(ended - began, 1),
        },
        "data_wait": sum(waits) / len(waits),
        "summary": json.loads((evaluation / "summary.json").read_text()),
    }


def main() -> None:
    """Run it and hand on the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="write the JSON object here too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = {"benchmark": "demo", "machine": machine(), **run(Path(folder) / "clone")}
    finish(result, options.out)


if __name__ == "__main__":
    main()
