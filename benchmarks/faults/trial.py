"""One fault: its place, its commands, the moment at which it hits, and what is seen of it."""

from __future__ import annotations

import random
import re
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.faults.process import Command, Ended, Role
from benchmarks.faults.reference import Reference
from benchmarks.faults.stage import SAVE_EVERY, STAGES, Place

__all__ = ["Late", "Trial", "wait"]

TOLD = re.compile(r'\{"step": (\d+), "time": ([\d.]+),')
"""What a line of training's log begins with: a finished step, and when it was."""


class Late(Exception):
    """The moment of a fault did not come before its command had ended."""


class Trial:
    """What a kind of fault is given, and what it leaves to be judged.

    Args:
        folder: For this fault alone; there already.
        stage: The name of the stage that is hit.
        ranks: Of its commands.
        source: Of all that is random.
        reference: The undisturbed runs.
        patience: Seconds after which a command counts as hung.
    """

    def __init__(
        self,
        folder: Path,
        stage: str,
        ranks: int,
        source: random.Random,
        reference: Reference,
        patience: float,
    ) -> None:
        self.folder, self.name, self.ranks, self.source = folder, stage, ranks, source
        self.stage = STAGES[stage]
        self.reference, self.patience = reference, patience
        self.clock = reference.clock(stage, ranks)
        self.stack = ExitStack()
        self.attempts: list[Ended] = []
        self.detail: dict[str, Any] = {}
        self.named: list[str] = []
        self.bound = SAVE_EVERY
        self.obedient = False
        self._finished: dict[str, object] = {}
        self._redone: set[str] = set()
        self._running: list[Command] = []
        self.settle(folder)

    def settle(self, root: Path, shards: str | None = None) -> None:
        """Work in a folder, on shards that may lie elsewhere than those of the reference."""
        own = f"{root}/shards" if self.name == "build" else str(self.reference.shards)
        self.place = Place(root=root, shards=shards or own, cache=self.folder / "cache")
        self.reference.copy_needs(self.stage, self.place)

    def name_one_of(self, *places: object) -> None:
        """An error that this fault causes must name one of these places."""
        self.named += [re.escape(str(place)) for place in places]

    def start(self) -> Command:
        """Give the command."""
        number = len(list(self.folder.glob("told-*")))
        words = self.stage.words(self.place)
        command = Command(words, self.ranks, self.folder / f"told-{number}", bound=self.obedient)
        self._running.append(command)
        return command

    def end(self, command: Command) -> Ended:
        """Wait for a command's end, and for that of all that it started."""
        ended = command.end(self.patience, self.note)
        if self.stage.is_complete(self.place):
            ended = replace(ended, midway=False)
        self._running.remove(command)
        self.attempts.append(ended)
        self.note()
        return ended

    def run(self) -> Ended:
        """Give the command, and let it be."""
        return self.end(self.start())

    def moment(self, command: Command, *, at_start: bool) -> None:
        """Wait for a random moment of a command's life: starting, at work, or ending.

        Raises:
            Late: If the command ends before.
        """
        part = self.source.random()
        if part < 0.2 and at_start:
            self.pause(self.clock.startup)
        elif part < 0.8:
            self.until(command, self.source.randint(1, self.stage.items - 1))
            self.pause(self.clock.pace)
        else:
            self.until(command, self.stage.items)
            self._end_of(command, closing=part > 0.9)

    def send(self, command: Command, role: Role, number: signal.Signals) -> None:
        """Send a random process of a role a signal, as soon as there is one.

        Raises:
            Late: If the command, or that process, ends before.
        """
        wait(lambda: bool(command.processes()[role]), command, self.patience)
        done = self.stage.done(self.place)
        command.midway = 0 < done < self.stage.items
        self.note()
        there = command.processes()[role]
        if not there or not command.send(role, self.source.choice(there), number):
            raise Late
        self.detail |= {"signal": number.name, "to": role, "done": done}

    def until(self, command: Command, items: int) -> None:
        """Wait until so many items are finished.

        Raises:
            Late: If the command ends before.
        """
        wait(lambda: self.stage.done(self.place) >= items, command, self.patience)
        self.note()

    def pause(self, most: float) -> float:
        """Sleep for a random time; how long."""
        seconds = self.source.uniform(0, most)
        time.sleep(seconds)
        return seconds

    def note(self) -> None:
        """Remember which items or steps are finished, and which of them are so anew."""
        finished = self._look()
        self._redone |= {
            i for i, time_ in finished.items() if self._finished.get(i, time_) != time_
        }
        self._finished |= finished

    def lost(self) -> int:
        """Finished items or steps that were done again, as far as was noted."""
        return len(self._redone)

    def differences(self) -> list[str]:
        """What differs from the undisturbed run."""
        return self.stage.differences(self.place, self.reference.place(self.name, self.ranks))

    def close(self) -> None:
        """End what still runs, unmount, stop servers."""
        for command in self._running:
            command.kill()
        self.stack.close()

    def _end_of(self, command: Command, *, closing: bool) -> None:
        """Wait for a random moment after the last item, or for when what was made is published."""
        if closing and self.stage.last:
            wait(lambda: self.stage.is_closing(self.place), command, self.patience)
        else:
            self.pause(self.clock.tail)

    def _look(self) -> Mapping[str, object]:
        """Finished items or steps -> when they were.

        A resumed run cuts from its log the steps that it does again, so that one look at the end
        tells nothing of them.
        """
        log = self.place.run / "logs/rank-00000.jsonl"
        if self.stage.records or not log.is_file():
            return self.stage.finished(self.place)
        return dict(TOLD.findall(log.read_text()))


def wait(condition: Callable[[], bool], command: Command, patience: float) -> None:
    """Look every few milliseconds until a condition holds.

    Raises:
        Late: If the command ends before, or it takes too long.
    """
    end = time.monotonic() + patience
    while not condition():
        if command.over or time.monotonic() > end:
            raise Late
        time.sleep(0.004)
