"""What a fault ended in: the correct result, one clear error before it, or anything else."""

from __future__ import annotations

import re
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from benchmarks.faults.process import Ended
from benchmarks.faults.stage import damaged
from benchmarks.faults.trial import Trial

__all__ = ["Verdict", "judge"]

FORM = re.compile(r"error: [^|]+( \| (at|got|expected|do): .+)+$")
"""What, and further parts; a line may begin with the rank."""
STOPPED = re.compile(r"error: asked to stop\b")
LOST = re.compile(r"error: rank \d+ lost contact with another rank during \w+")
KNOWN = (2, 3, 4, 5, 75)
"""Exit statuses of errors that the command line tells in one line."""
ASKING = (signal.SIGTERM, signal.SIGUSR2)

Word = Literal["correct", "clear error", "wrong", "hang"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The verdict on a fault.

    Args:
        word: In a word.
        problems: Why it is wrong.
        lost: Finished work that was done again: training steps, or items of another stage.
    """

    word: Word
    problems: tuple[str, ...]
    lost: int


def judge(trial: Trial) -> Verdict:
    """Judge a fault after the last command has ended.

    An error is clear if a line of the project's form names the place that the fault hit, or tells
    of a lost rank and the phase. One that a user meets by repeating the command alone, since it was
    asked to stop or lost a rank, does not count as an error.
    """
    problems = [p for ended in trial.attempts for p in _flaws(ended, trial)]
    if trial.attempts[-1].code:
        problems.append(f"the last command ended with {trial.attempts[-1].code}")
    problems += [f"differs: {name}" for name in trial.differences()]
    problems += [f"damaged: {name}" for name in damaged(trial.place.root)]
    lost, bound = trial.lost(), 0 if trial.stage.records else trial.bound
    if lost > bound:
        problems.append(f"lost {lost} finished items, beyond {bound}")
    told = [line for ended in trial.attempts for _, line in ended.errors]
    mended = any(not STOPPED.search(line) and not LOST.search(line) for line in told)
    word: Word = "clear error" if mended else "correct"
    if problems:
        word = "hang" if any(ended.hung for ended in trial.attempts) else "wrong"
    return Verdict(word=word, problems=tuple(problems), lost=lost)


def _flaws(ended: Ended, trial: Trial) -> Iterator[str]:
    if ended.hung:
        yield f"still there after {ended.seconds} s"
        return
    yield from (f"crash: {line}" for line in ended.crashes)
    for rank, count in Counter(rank for rank, _ in ended.errors).items():
        if count > 1:
            yield f"rank {rank} told {count} errors"
    for _, line in ended.errors:
        if not _is_clear(line, ended, trial):
            yield f"unclear: {line[:300]}"
    if ended.code:
        yield from _flaws_of_code(ended, trial)
    elif ended.errors:
        yield "told an error and ended with 0"


def _is_clear(line: str, ended: Ended, trial: Trial) -> bool:
    if not FORM.search(line) or "Traceback" in line:
        return False
    several = trial.ranks > 1
    if STOPPED.search(line):
        return several or (ended.sent is not None and ended.sent[1] in ASKING)
    return bool(several and LOST.search(line)) or any(re.search(n, line) for n in trial.named)


def _flaws_of_code(ended: Ended, trial: Trial) -> Iterator[str]:
    role, number = ended.sent or ("", None)
    hit = (trial.ranks > 1 and role == "launcher") or (trial.ranks == 1 and role == "rank")
    if number is not None and hit and ended.code == -number:
        if number in ASKING and role == "rank" and ended.midway:
            yield f"ended by {number.name} without being asked"
        return
    if trial.ranks == 1 and ended.code not in KNOWN:
        yield f"ended with {ended.code}"
    # a rank that was killed as it started, or after the others ended, leaves nobody to tell
    if not ended.errors and not (trial.ranks > 1 and role and not ended.midway):
        yield f"ended with {ended.code} and told nothing"
