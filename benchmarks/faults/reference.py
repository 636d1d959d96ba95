"""The undisturbed runs that all others are compared with, made once, and how long they took."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.faults.process import Command
from benchmarks.faults.stage import KME, STAGES, Place, Stage

__all__ = ["Clock", "Reference"]

SHARDS = "build"
TRAINED = "train"


@dataclass(frozen=True, kw_only=True, slots=True)
class Clock:
    """Seconds of an undisturbed command.

    Args:
        startup: Until the first item was finished.
        pace: From one item to the next.
        tail: From the last item to the end.
    """

    startup: float
    pace: float
    tail: float


class Reference:
    """The undisturbed runs in a folder; what is there already is not made again.

    Two ranks leave what one leaves, but for the rounding of sums in training, so that alone has a
    reference for each.

    Args:
        folder: Where they are.
        patience: Seconds that a command may take.
    """

    def __init__(self, folder: Path, patience: float) -> None:
        self._folder, self._patience = folder, patience
        self.clocks: dict[str, Clock] = {}
        kept = folder / "clocks.json"
        if not kept.is_file():
            shutil.rmtree(folder, ignore_errors=True)
            self._make()
            kept.write_text(json.dumps({k: asdict(v) for k, v in self.clocks.items()}, indent=1))
        self.clocks = {k: Clock(**v) for k, v in json.loads(kept.read_text()).items()}

    def place(self, name: str, ranks: int) -> Place:
        """Where a stage's undisturbed run is."""
        size = ranks if name == TRAINED else 1
        root = self._folder / f"{name}-{size}"
        return Place(root=root, shards=str(self.shards), cache=root / "cache")

    @property
    def shards(self) -> Path:
        """The shards that all stages read."""
        return self._folder / f"{SHARDS}-1/shards"

    def copy_needs(self, stage: Stage, place: Place) -> None:
        """Give a run what the stages before leave."""
        for need in stage.needs:
            source = self.place(TRAINED, 1).run / need
            shutil.copytree(source, place.run / need, dirs_exist_ok=True)

    def clock(self, name: str, ranks: int) -> Clock:
        """About how long a stage takes."""
        alone, started = self.clocks[f"{name}-1"], self.clocks[f"{TRAINED}-{ranks}"]
        if ranks == 1:
            return alone
        return Clock(startup=started.startup, pace=alone.pace, tail=alone.tail)

    def _make(self) -> None:
        self._run("build", 1)
        self._run("gram", 1)
        empty = self.place(TRAINED, 1)
        empty.root.mkdir(parents=True)
        fit = [word for word in STAGES["gram"].words(empty) if word != KME]
        _end(Command(fit, 1, empty.root / "told-fit"), self._patience)
        self._run("train", 1)
        second = self.place(TRAINED, 2)
        shutil.copytree(empty.run / "embedding", second.run / "embedding")
        self._run("train", 2)
        self._run("sample", 1)

    def _run(self, name: str, ranks: int) -> None:
        stage, place = STAGES[name], self.place(name, ranks)
        place.root.mkdir(parents=True, exist_ok=True)
        if name == "sample":
            self.copy_needs(stage, place)
        command = Command(stage.words(place), ranks, place.root / "told")
        began, times, done = time.monotonic(), [], 0
        while not command.over:
            found = stage.done(place)
            times += [time.monotonic()] * (found - done)
            done = max(done, found)
            time.sleep(0.005)
        _end(command, self._patience)
        ended = time.monotonic()
        if not times:
            raise RuntimeError(f"{name} was too fast to be watched")
        self.clocks[f"{name}-{ranks}"] = Clock(
            startup=times[0] - began,
            pace=(times[-1] - times[0]) / max(1, len(times) - 1),
            tail=ended - times[-1],
        )


def _end(command: Command, patience: float) -> None:
    ended = command.end(patience)
    if ended.code or ended.errors or ended.crashes:
        raise RuntimeError(f"an undisturbed run failed: {ended}")
