"""The paper's first experiment, on 2-D mixtures: heads, seeds and numbers of training laws.

Figures are those of each run's summary.json: the squared MMD of 60 seen and 60 unseen laws
at several bandwidths beside what two real sets give, the error of the learned score against the
exact one, and, for the first row, a score model for each law alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import finish, machine
from benchmarks.campaign import Run, carry_out, interval
from sno_dist.evaluation.training_log import read_log

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


def run_of(row: Row, seed: int) -> Run:
    """One run of a row."""
    laws = () if row.laws is None else (f"shards.source.seen={row.laws}",)
    settings = (f"seed={seed}", "training.picture_every=1000000", "training.save_every=500")
    return Run(
        name=f"{row.name}-{seed}",
        config=row.config,
        overrides=(*settings, "sampling.contexts=[]", *laws, *row.overrides),
        shared={"shards.path": f"shards-{row.laws}"},
    )


def figures(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A row of the table from its seeds' summaries."""
    found: dict[str, Any] = {
        "training_seconds": [read_log(summary["folder"]).seconds for summary in summaries],
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
    table = [
        row
        for row in rows(arguments.seeds, arguments.laws)
        if not arguments.only or row.name in arguments.only
    ]
    jobs = [(row, seed) for row in table for seed in row.seeds]
    done = carry_out(arguments.work, [run_of(*job) for job in jobs])
    result: dict[str, Any] = {"benchmark": "gmm2d", "machine": machine(), "goals": GOALS}
    result["rows"] = {
        row.name: {"config": row.config, "overrides": list(row.overrides), "laws": row.laws}
        | figures([found for (own, _), found in zip(jobs, done, strict=True) if own is row])
        for row in table
    }
    finish(result, arguments.out)


if __name__ == "__main__":
    main()
