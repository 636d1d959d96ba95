"""The kinds of faults: what each is injected by, and into which stages."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from benchmarks.faults import disks, folders, remote, shards, signals
from benchmarks.faults.process import Role
from benchmarks.faults.trial import Trial

__all__ = ["KINDS", "Kind"]

MOSTLY_ALONE = (1, 1, 2)
TRAIN = ("train",)
WRITERS = ("build", "gram", "train", "sample")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """One kind of fault.

    Args:
        inject: Hits a command, mends what it broke and returns.
        stages: One of them is hit.
        ranks: Of the first command, the second and so on, over and over.
        why_not: Why it cannot be injected here; empty if it can.
    """

    inject: Callable[[Trial], None]
    stages: tuple[str, ...] = TRAIN
    ranks: tuple[int, ...] = MOSTLY_ALONE
    why_not: Callable[[], str] = str


def _signal(role: Role, number: signal.Signals) -> Kind:
    inject = partial(signals.signal_one, role=role, number=number)
    match role:
        case "rank":
            return Kind(inject=inject, stages=("train", *WRITERS))
        case "worker":
            return Kind(inject=inject)
        case "launcher":
            return Kind(inject=inject, stages=("train", "sample"), ranks=(2,))


def _orphan(number: signal.Signals) -> Kind:
    return Kind(
        inject=partial(signals.orphan, number=number), stages=("train", "sample"), ranks=(2,)
    )


def _shard(harm: shards.Damage) -> Kind:
    return Kind(inject=partial(shards.damage, harm=harm))


def _short(trial: Trial) -> None:
    trial.source.choice([shards.cut_while_open, remote.short])(trial)


KINDS = {
    "kill rank": _signal("rank", signal.SIGKILL),
    "term rank": _signal("rank", signal.SIGTERM),
    "usr2 rank": _signal("rank", signal.SIGUSR2),
    "kill launcher": _orphan(signal.SIGKILL),
    "term launcher": _signal("launcher", signal.SIGTERM),
    "usr2 launcher": _orphan(signal.SIGUSR2),
    "kill worker": _signal("worker", signal.SIGKILL),
    "term worker": _signal("worker", signal.SIGTERM),
    "usr2 worker": _signal("worker", signal.SIGUSR2),
    "kill in save": Kind(inject=signals.kill_in_save),
    "kill in build": Kind(inject=signals.kill_at_work, stages=("build",)),
    "kill in Gram": Kind(inject=signals.kill_at_work, stages=("gram",)),
    "shard truncated": _shard(shards.cut),
    "shard flipped": _shard(shards.flip),
    "shard missing": _shard(shards.remove),
    "shard swapped": _shard(shards.swap),
    "disk full": Kind(inject=disks.full, stages=WRITERS, why_not=disks.no_mount),
    "folder read-only": Kind(inject=disks.read_only, stages=WRITERS, why_not=disks.no_modes),
    "server stopped": Kind(inject=remote.stopped),
    "server slow": Kind(inject=remote.slow),
    "server garbage": Kind(inject=remote.garbage),
    "short read": Kind(inject=_short),
    "stale lock": Kind(inject=folders.stale_lock),
    "two runs": Kind(inject=folders.two_runs, stages=WRITERS),
}
