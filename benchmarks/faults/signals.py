"""Signals to one process of a command: a rank, the launcher, a loader worker."""

from __future__ import annotations

import signal

from benchmarks.faults.process import Role
from benchmarks.faults.trial import Trial, wait

__all__ = ["kill_at_work", "kill_in_save", "orphan", "signal_one"]

WORKER = "a loader worker"


def signal_one(trial: Trial, role: Role, number: signal.Signals) -> None:
    """Send one process a signal at a random moment.

    One that asks to stop must cost no finished work.
    """
    if number != signal.SIGKILL:
        trial.bound = 0
    if role == "worker":
        trial.named.append(WORKER)
    command = trial.start()
    trial.moment(command, at_start=role != "worker")
    trial.send(command, role, number)
    trial.end(command)


def kill_at_work(trial: Trial) -> None:
    """Kill a rank at a random moment, but not while it starts."""
    command = trial.start()
    trial.moment(command, at_start=False)
    trial.send(command, "rank", signal.SIGKILL)
    trial.end(command)


def kill_in_save(trial: Trial) -> None:
    """Kill a rank while a checkpoint is written."""
    command = trial.start()
    trial.until(command, trial.source.randint(1, trial.stage.items - 1))
    training = trial.place.run / "training"
    wait(lambda: any(training.glob(".step-*.partial")), command, trial.patience)
    trial.pause(0.05)
    trial.detail["writing"] = sorted(path.name for path in training.glob(".step-*"))
    trial.send(command, "rank", signal.SIGKILL)
    trial.end(command)


def orphan(trial: Trial, number: signal.Signals) -> None:
    """End the launcher by a signal that it does not hand on, and give the command again at once.

    Its ranks go on without it, so that the second command may find the folder in use.
    """
    trial.name_one_of(trial.place.run)
    first = trial.start()
    trial.moment(first, at_start=True)
    trial.send(first, "launcher", number)
    trial.run()
    trial.end(first)
