"""The steps that a fault costs are counted, though a resumed run cuts them from its log."""

from __future__ import annotations

import json
import random
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.faults.reference import Reference
from benchmarks.faults.trial import Trial
from sno_dist.runtime import tracking

NEWEST = 10
STEPS = 12


@pytest.fixture
def trial(tmp_path: Path) -> Trial:
    """A fault in training, beside undisturbed runs that need not be made."""
    kept = tmp_path / "reference"
    (kept / "train-1/run/embedding").mkdir(parents=True)
    clock = {"startup": 0.0, "pace": 0.0, "tail": 0.0}
    (kept / "clocks.json").write_text(json.dumps({"train-1": clock}))
    folder = tmp_path / "fault"
    folder.mkdir()
    return Trial(folder, "train", 1, random.Random(0), Reference(kept, 1.0), 1.0)


def attempt(trial: Trial, first: int, last: int) -> None:
    """Log as training does that goes on from a step, and is noted when it has ended."""
    tracker = tracking.Tracker(trial.place.run, resume=first)
    for step in range(first, last):
        tracker.scalars({"loss/score": 1.0}, step + 1)
    tracker.close()
    trial.note()


@pytest.mark.parametrize(("first", "lost"), [(0, 10), (8, 2), (NEWEST, 0)])
def test_steps_after_the_one_gone_on_from_are_lost(
    trial: Trial, first: int, lost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # no two lines of a log are of the same time
    monkeypatch.setattr(tracking, "time", SimpleNamespace(time=count(1.5).__next__))
    attempt(trial, 0, NEWEST)
    assert trial.lost() == 0
    # an attempt that fails before it trains, and one that is killed before its first step
    trial.note()
    attempt(trial, first, first)
    attempt(trial, first, STEPS)
    assert trial.lost() == lost
