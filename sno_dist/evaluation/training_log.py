"""What training logged, as curves: losses, and the accuracy of its probe."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sno_dist.errors import DataError

__all__ = ["LearningCurve", "TrainingLog", "learning_of", "read_log"]

Curve = tuple[list[float], list[float]]
"""Steps, values."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LearningCurve:
    """Accuracy of a few generated samples while training went on.

    Args:
        steps: Updates done.
        minutes: Time that they took, without that of interruptions.
        accuracies: Condition -> accuracy at each of them.
    """

    steps: Sequence[float]
    minutes: Sequence[float]
    accuracies: Mapping[str, Sequence[float]]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingLog:
    """A run's training as it was logged; where a resumed run wrote a step twice, the last counts.

    Args:
        losses: Name -> curve.
        learning: The probe's curve; none where training had none.
        seconds: What training took, without interruptions.
    """

    losses: Mapping[str, Curve] = field(default_factory=dict)
    learning: LearningCurve | None = None
    seconds: float = 0.0


def learning_of(folders: Sequence[str]) -> dict[str, LearningCurve]:
    """Run -> learning curve, of some runs' folders; of two of one name, each by its whole path.

    Raises:
        DataError: If one has none.
    """
    found, names = {}, Counter(Path(folder).name for folder in folders)
    for run in (Path(folder).expanduser() for folder in folders):
        if not run.is_dir():
            raise DataError("a run to show beside is not there", where=run)
        learning = read_log(run).learning
        if learning is None:
            raise DataError(
                "a run has no learning curve to show",
                where=run,
                fix="name a folder whose training had training.probe.every above 0",
            )
        found[run.name if names[run.name] == 1 else str(run)] = learning
    return found


def read_log(run: Path) -> TrainingLog:
    """The log of a run's folder; an empty one where there is none."""
    path = run / "logs" / "rank-00000.jsonl"
    if not path.is_file():
        return TrainingLog()
    rows = list(_rows(path))
    steps, seconds = _clock(rows)
    return TrainingLog(
        losses=_named(rows, "loss/"), learning=_learning(rows, steps, seconds), seconds=seconds[-1]
    )


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    for line in path.read_text().splitlines():
        # a run that is killed may leave a part of a line
        with suppress(json.JSONDecodeError):
            yield json.loads(line)


def _named(rows: Sequence[Mapping[str, Any]], prefix: str) -> dict[str, Curve]:
    found: dict[str, dict[float, float]] = {}
    for row in rows:
        for name, value in row.items():
            if name.startswith(prefix):
                found.setdefault(name.removeprefix(prefix), {})[float(row["step"])] = value
    return {
        name: (sorted(values), [values[step] for step in sorted(values)])
        for name, values in found.items()
    }


def _clock(rows: Sequence[Mapping[str, Any]]) -> Curve:
    """Steps, and the seconds of training until each."""
    places, rates = _named(rows, "speed/").get("steps_per_second", ([], []))
    seconds = np.cumsum(np.diff([0.0, *places]) / np.array(rates))
    return [0.0, *places], [0.0, *seconds.tolist()]


def _learning(
    rows: Sequence[Mapping[str, Any]], places: Sequence[float], seconds: Sequence[float]
) -> LearningCurve | None:
    curves = _named(rows, "probe/")
    if not curves:
        return None
    steps = next(iter(curves.values()))[0]
    return LearningCurve(
        steps=steps,
        minutes=(np.interp(steps, places, seconds) / 60).tolist(),
        accuracies={name: values for name, (_, values) in curves.items()},
    )
