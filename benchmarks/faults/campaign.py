"""A campaign: faults of all kinds, a few at a time, each judged and written down as it ends."""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from benchmarks.faults.kinds import KINDS
from benchmarks.faults.process import Ended
from benchmarks.faults.reference import Reference
from benchmarks.faults.trial import Late, Trial
from benchmarks.faults.verdict import judge

__all__ = ["Campaign", "summary"]

TRIES = 5
"""A fault whose moment came too late is tried again, at another."""

Record = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Campaign:
    """What is to be injected, and where that is written down.

    Args:
        work: Holds the undisturbed runs, the faults' folders while they run or if they went wrong,
            and faults.jsonl.
        seed: Of all that is random.
        patience: Seconds after which a command counts as hung.
    """

    work: Path
    seed: int
    patience: float

    def run(self, kinds: Sequence[str], count: int, jobs: int) -> list[Record]:
        """Inject `count` faults of each kind, `jobs` at a time; those written down are done."""
        self.work.mkdir(parents=True, exist_ok=True)
        reference = Reference(self.work / "reference", self.patience)
        records = self._written()
        done = {(record["kind"], record["index"]) for record in records}
        # kind after kind in turn, so that a campaign cut short has met them all
        todo = [(kind, i) for i in range(count) for kind in kinds if (kind, i) not in done]
        lock = Lock()

        def one(kind: str, index: int) -> None:
            record = self._inject(kind, index, reference)
            with lock, (self.work / "faults.jsonl").open("a") as stream:
                stream.write(json.dumps(record) + "\n")
                records.append(record)
                print(_line(record, len(records)), file=sys.stderr, flush=True)

        with ThreadPoolExecutor(jobs) as pool:
            list(pool.map(lambda item: one(*item), todo))
        return [r for r in records if r["kind"] in kinds and r["index"] < count]

    def _written(self) -> list[Record]:
        log = self.work / "faults.jsonl"
        records = (
            [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        )
        return [record for record in records if record["seed"] == self.seed]

    def _inject(self, kind: str, index: int, reference: Reference) -> Record:
        """Inject one fault, have the command end well, and judge; what was seen."""
        began = time.monotonic()
        for number in range(TRIES):
            source = random.Random(f"{self.seed} {kind} {index} {number}")
            stage = source.choice(KINDS[kind].stages)
            ranks = KINDS[kind].ranks[index % len(KINDS[kind].ranks)]
            folder = self.work / f"{kind.replace(' ', '-')}-{index}"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            trial = Trial(folder, stage, ranks, source, reference, self.patience)
            try:
                KINDS[kind].inject(trial)
                if trial.attempts[-1].code or trial.differences():
                    trial.run()
                verdict = judge(trial)
            except Late:
                continue
            finally:
                trial.close()
            if not verdict.problems:
                shutil.rmtree(folder)
            return {
                **{"kind": kind, "index": index, "seed": self.seed, "stage": stage},
                **{"ranks": ranks, "detail": trial.detail, **asdict(verdict)},
                "attempts": [_told(ended) for ended in trial.attempts],
                "seconds": round(time.monotonic() - began, 1),
            }
        raise RuntimeError(f"the moment of a fault never came: {kind}, number {index}")


def summary(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Kind -> how many there were, how many ended in what, and the most work that was lost."""
    found = {}
    for kind in dict.fromkeys(record["kind"] for record in records):
        of_kind = [record for record in records if record["kind"] == kind]
        words = Counter(record["word"] for record in of_kind)
        found[kind] = {
            "count": len(of_kind),
            **{word: words[word] for word in ("correct", "clear error", "wrong", "hang")},
            "largest lost": max(record["lost"] for record in of_kind),
            "longest seconds": max(a["seconds"] for r in of_kind for a in r["attempts"]),
        }
    return found


def _told(ended: Ended) -> dict[str, Any]:
    return {
        "code": ended.code,
        "seconds": ended.seconds,
        "errors": [line for _, line in ended.errors],
        "crashes": ended.crashes,
    }


def _line(record: Record, number: int) -> str:
    told = "; ".join(record["problems"]) or "; ".join(
        line for attempt in record["attempts"] for line in attempt["errors"]
    )
    return (
        f"{number:4d} {record['kind']:<16} {record['stage']:<6} ranks {record['ranks']} "
        f"{record['seconds']:6.1f} s  lost {record['lost']}  {record['word']}: {told[:200]}"
    )
