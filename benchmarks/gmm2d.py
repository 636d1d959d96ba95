"""The paper's first experiment, on 2-D mixtures: heads, seeds and numbers of training laws.

Every row is a run of its own, by the command that a user types, on one thread; as many run at a
time as there are cores. A run that is there already is not run again, so an interrupted campaign
goes on. Figures are those of each run's summary.json: the squared MMD of 60 seen and 60 unseen laws
at several bandwidths beside what two real sets give, the error of the learned score against the
exact one, and, for the first row, a score model for each law alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from benchmarks import finish, machine

OURS, PAPER = "configs/gmm2d.yaml", "configs/gmm2d_paper.yaml"
MIXTURE = "model.network={kind: mixture, terms: 128, width: 256, depth: 4, detail: 0.5}"
GOALS = {"unseen_score_error": 0.006, "unseen_over_seen": 1.1, "unseen_over_floor": 1.5}
FIGURES = ("mmd", "mmd_floor", "mmd_worst_ratio", "mmd_rejected")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Args:
        name: Its name, and its runs' folder.
        config: The file.
        overrides: What differs from it.
        seeds: Of its runs.
        laws: How many seen laws; none: all.
    """

    name: str
    config: str = OURS
    overrides: Sequence[str] = ()
    seeds: Sequence[int] = (0,)
    laws: int | None = field(default=None)


def rows(seeds: Sequence[int], laws: Sequence[int]) -> list[Row]:
    """The table: four heads, the first with several seeds, and it on other numbers of laws."""
    heads = [
        Row(name="product", overrides=("sampling.baselines=[individual]",), seeds=seeds),
        Row(name="linear", overrides=("model.network.join=concat",)),
        Row(name="mixture", overrides=(MIXTURE,)),
        Row(name="paper", config=PAPER),
    ]
    return [*heads, *(Row(name=f"laws{count}", laws=count) for count in laws)]


def run(work: Path, row: Row, seed: int) -> dict[str, Any]:
    """One run, or what it left; its summary, and the seconds that training took."""
    folder = work / f"{row.name}-{seed}"
    if not (folder / "evaluation/COMPLETE").is_file():
        line = ["-c", row.config, f"seed={seed}", f"run={folder}", "training.picture_every=1000000"]
        line += ["training.save_every=500", f"shards.path={work / f'shards-{row.laws}'}"]
        line.append("sampling.contexts=[]")
        if row.laws is not None:
            line.append(f"shards.source.seen={row.laws}")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (work / f"{folder.name}.log").open("a") as log:
            command = [sys.executable, "-m", "sno_dist", "run", *line, *row.overrides]
            subprocess.run(command, check=True, stderr=log, stdout=log, env=environment)
    return {
        **json.loads((folder / "evaluation/summary.json").read_text()),
        "training_seconds": trained(folder),
    }


def trained(folder: Path) -> float:
    """The seconds between a run's logged steps, those of resumed attempts added up."""
    lines = (folder / "logs/rank-00000.jsonl").read_text().splitlines()
    told = [row for row in map(json.loads, lines) if "speed/steps_per_second" in row]
    steps = np.diff([0, *(row["step"] for row in told)])
    return float(sum(s / row["speed/steps_per_second"] for s, row in zip(steps, told, strict=True)))


def interval(values: Sequence[float]) -> dict[str, Any]:
    """The mean of some seeds, and its 95 % interval by Student's law."""
    found: dict[str, Any] = {"mean": float(np.mean(values)), "seeds": list(values)}
    if len(values) > 1:
        half = student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
        found["interval"] = [found["mean"] - half, found["mean"] + half]
    return found


def figures(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A row of the table from its seeds' summaries."""
    found: dict[str, Any] = {
        "training_seconds": [summary["training_seconds"] for summary in summaries],
        "bandwidth": summaries[0]["mmd_bandwidth"],
    }
    for split in ("seen", "unseen"):
        error = f"{split}_mean"
        found[split] = {
            name: interval([summary[split][name] for summary in summaries]) for name in FIGURES
        }
        found[split]["mmd_by_bandwidth"] = [s[split]["mmd_by_bandwidth"] for s in summaries]
        found[split]["score_error"] = interval([s["score_error"][error] for s in summaries])
        found[split]["score_error_by_level"] = [s["score_error"][split] for s in summaries]
        alone = [s["baselines"]["individual"][split] for s in summaries if "baselines" in s]
        if alone:
            found[split]["individual"] = {
                name: interval([section[name] for section in alone]) for name in FIGURES
            }
    found["levels"] = summaries[0]["score_error"]["levels"]
    return found


def main() -> None:
    """Run what is missing, and gather the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/gmm2d-campaign"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--laws", type=int, nargs="*", default=[250, 500, 1000, 4000])
    parser.add_argument("--only", nargs="*", help="rows by name; none: all")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    table = [
        row
        for row in rows(arguments.seeds, arguments.laws)
        if not arguments.only or row.name in arguments.only
    ]
    jobs = [(row, seed) for row in table for seed in row.seeds]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        done = list(pool.map(lambda job: run(arguments.work, *job), jobs))
    result: dict[str, Any] = {"benchmark": "gmm2d", "machine": machine(), "goals": GOALS}
    result["rows"] = {
        row.name: {"config": row.config, "overrides": list(row.overrides), "laws": row.laws}
        | figures([found for (own, _), found in zip(jobs, done, strict=True) if own is row])
        for row in table
    }
    finish(result, arguments.out)


if __name__ == "__main__":
    main()
