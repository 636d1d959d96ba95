"""The stages as faults meet them: small commands, how far each is, and what each leaves."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from glob import glob
from pathlib import Path

from benchmarks.faults.process import ROOT
from sno_dist.errors import ArtifactError
from sno_dist.runtime.artifact import is_complete, open_artifact

__all__ = ["SAVE_EVERY", "STAGES", "Place", "Stage", "damaged"]

STEPS = 24
SAVE_EVERY = 6
SETTINGS = (
    "shards.source={kind: digits, model: 512, judge: 4, reference: 8}",
    "judge=null",
    f"training.steps={STEPS}",
    f"training.save_every={SAVE_EVERY}",
    "training.log_every=1",
    "training.picture_every=1000",
    "training.workers=1",
    "sampling.guidance=1.0",
    "sampling.samples=8",
    "sampling.batch=32",
)
KME = "embedding={kind: kme, samples: 512}"
STEP = re.compile(r'^.*?\{"step": (\d+),', re.MULTILINE)
TIMED = ("sampling/index.json", "sampling/COMPLETE")
"""Files that hold the seconds a stage took, or the hash of those."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a command reads and writes.

    Args:
        root: Holds the folder `run`.
        shards: Folder or URL of the shards.
        cache: Where remote shards are kept.
    """

    root: Path
    shards: str
    cache: Path

    @property
    def run(self) -> Path:
        """The run's folder."""
        return self.root / "run"


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One stage's command.

    Args:
        command: Its name.
        needs: Folders of the run that the stages before it leave.
        result: The folder that it leaves, below the place's root.
        hidden: The folder that it writes before, or, of training, the prefix of those.
        records: What it keeps of finished items, below that; none: its log counts.
        last: The file, below that, that it writes when all items are finished, if there is one.
        items: How many items there are.
        settings: Overrides.
    """

    command: str
    needs: tuple[str, ...] = ()
    result: str
    hidden: str
    records: str = ""
    last: str = ""
    items: int
    settings: tuple[str, ...] = ()

    def words(self, place: Place) -> list[str]:
        """The words of its command."""
        return [
            *(self.command, "-c", str(ROOT / "configs/smoke.yaml"), *SETTINGS, *self.settings),
            *(f"shards.path={place.shards}", f"shards.cache={place.cache}", f"run={place.run}"),
        ]

    def done(self, place: Place) -> int:
        """Items that are finished, or steps that were told."""
        if not self.records:
            return len(_steps_told(place.run))
        return len(glob(str(place.root / self.hidden / self.records)))

    def is_closing(self, place: Place) -> bool:
        """Whether all that is left is to publish what was made."""
        return bool(self.last) and (place.root / self.hidden / self.last).is_file()

    def is_complete(self, place: Place) -> bool:
        """Whether what it makes is published."""
        return is_complete(place.root / self.result)

    def finished(self, place: Place) -> dict[str, int]:
        """Finished items -> when they were written, of a stage that is at work or was stopped."""
        if not self.records:
            return {}
        return _times(glob(str(place.root / self.hidden / self.records)))

    def differences(self, place: Place, reference: Place) -> list[str]:
        """The files in which what it left differs from the reference in any bit."""
        mine, theirs = (where.root / self.result for where in (place, reference))
        names = {
            path.relative_to(folder)
            for folder in (mine, theirs)
            for path in folder.rglob("*")
            # names that begin with a dot are for resuming, and belong to no artifact
            if path.is_file() and not _is_hidden(path.relative_to(folder))
        }
        told = []
        for name in sorted(names):
            both = [folder / name for folder in (mine, theirs)]
            same = all(p.is_file() for p in both) and both[0].read_bytes() == both[1].read_bytes()
            if not same and not both[0].as_posix().endswith(TIMED):
                told.append(f"{self.result}/{name}")
        return told


STAGES = {
    "build": Stage(
        command="build-shards",
        result="shards",
        hidden=".shards.partial",
        records=".records/*.json",
        last="manifest.json",
        items=100,
    ),
    "gram": Stage(
        command="fit-embedding",
        result="run/embedding",
        hidden="run/.embedding.partial",
        records=".gram/*.npy",
        last="report.json",
        items=6,
        settings=(KME,),
    ),
    "train": Stage(
        command="train",
        needs=("embedding",),
        result=f"run/training/step-{STEPS:08d}",
        hidden="run/training/.step-",
        items=STEPS,
    ),
    "sample": Stage(
        command="sample",
        needs=("embedding", "training"),
        result="run/sampling",
        hidden="run/.sampling.partial",
        records=".records/*/*/*.json",
        last="index.json",
        items=160,
    ),
}


def _steps_told(run: Path) -> list[int]:
    """The steps in a run's log, in the order of writing; a kill may leave half a line."""
    log = run / "logs/rank-00000.jsonl"
    return [int(step) for step in STEP.findall(log.read_text())] if log.is_file() else []


def damaged(root: Path) -> list[str]:
    """Artifacts that claim to be whole and are not, among those that readers look at."""
    found = []
    for path in sorted(path.parent for path in root.rglob("COMPLETE")):
        if _is_hidden(path.relative_to(root)):
            continue
        try:
            open_artifact(path, json.loads((path / "COMPLETE").read_text())["kind"])
        except (ArtifactError, ValueError) as error:
            found.append(f"{path.relative_to(root)}: {error}")
    pointer = root / "run/training/LATEST"
    if pointer.is_file() and not is_complete(pointer.parent / pointer.read_text().strip()):
        found.append("run/training/LATEST names a checkpoint that is not whole")
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _times(files: Iterable[str]) -> dict[str, int]:
    found = {}
    for file in files:
        try:
            found[file] = Path(file).stat().st_mtime_ns
        except OSError:  # gone since it was found
            continue
    return found
