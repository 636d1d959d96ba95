"""A lock and half-written files that a killed run left, and two runs in one folder."""

from __future__ import annotations

import os

from benchmarks.faults.trial import Trial

__all__ = ["stale_lock", "two_runs"]


def stale_lock(trial: Trial) -> None:
    """A lock that names a process which is gone, or another's, and what a killed writer left."""
    run, source = trial.place.run, trial.source
    holder = source.choice(["process 999999999 on elsewhere", f"process {os.getpid()} here", "\0"])
    (run / "training").mkdir(parents=True, exist_ok=True)
    (run / ".lock").write_text(holder)
    left = {
        "training/.LATEST.part": b"step-0000",
        "training/.step-00000006.partial/raw.safetensors": source.randbytes(1000),
        "training/.step-00000006.partial/.inputs": b"0",
        "training/.step-00000003.old/COMPLETE": b"{}",
        "training/step-00000012/raw.safetensors": source.randbytes(1000),
    }
    names = source.sample(sorted(left), source.randint(0, len(left)))
    for name in names:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(left[name])
    trial.detail |= {"holder": holder, "left": names}
    trial.run()


def two_runs(trial: Trial) -> None:
    """The same command twice at once: one does the work, the other finds it done or in use."""
    trial.name_one_of(trial.place.run, trial.place.root / trial.stage.hidden)
    first = trial.start()
    trial.detail["apart"] = round(trial.pause(trial.stage.items * trial.clock.pace), 2)
    second = trial.start()
    ended = [trial.end(command) for command in (first, second)]
    trial.detail["codes"] = [one.code for one in ended]
