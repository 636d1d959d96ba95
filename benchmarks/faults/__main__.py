"""Inject faults, print what became of them by kind, and say whether the goal is met."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import finish, machine
from benchmarks.faults.campaign import Campaign, summary
from benchmarks.faults.kinds import KINDS
from benchmarks.faults.stage import SAVE_EVERY

GOAL = (
    "no wrong result, no hang; done again are at most the steps since the last checkpoint, "
    f"{SAVE_EVERY}, and no other item that was finished"
)


def main() -> None:
    """Read the options, run the campaign, and write its result."""
    parser = argparse.ArgumentParser(prog="benchmarks.faults", description=GOAL)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--count", type=int, default=9, help="faults of each kind")
    parser.add_argument("--jobs", type=int, default=1, help="faults at a time")
    parser.add_argument("--seed", type=int, default=0, help="of stages, moments and victims")
    parser.add_argument("--patience", type=float, default=180, help="seconds until a hang")
    parser.add_argument("--work", type=Path, help="a folder to go on from; none: a temporary one")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    refused = {kind: why for kind in options.kinds if (why := KINDS[kind].why_not())}
    kinds = [kind for kind in options.kinds if kind not in refused]
    with tempfile.TemporaryDirectory() as folder:
        work = (options.work or Path(folder)).resolve()
        campaign = Campaign(work=work, seed=options.seed, patience=options.patience)
        records = campaign.run(kinds, options.count, options.jobs)
    wrong = [record for record in records if record["problems"]]
    result: dict[str, Any] = {
        "benchmark": "faults",
        "machine": machine(),
        "seed": options.seed,
        "jobs": options.jobs,
        "patience": options.patience,
        "faults": len(records),
        "two_ranks": sum(record["ranks"] > 1 for record in records),
        "seconds": round(sum(record["seconds"] for record in records)),
        "kinds": summary(records),
        "not_injected": refused,
        "not_as_it_should_be": wrong,
        "goal": GOAL,
        "met": not wrong,
    }
    finish(result, options.out)


if __name__ == "__main__":
    main()
