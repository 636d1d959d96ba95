"""What training logged, as curves: losses, and the accuracy of its probe."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["LearningCurve", "TrainingLog", "read_log"]

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
    """

    losses: Mapping[str, Curve] = field(default_factory=dict)
    learning: LearningCurve | None = None


def read_log(run: Path) -> TrainingLog:
    """The log of a run's folder; an empty one where there is none."""
    path = run / "logs" / "rank-00000.jsonl"
    if not path.is_file():
        return TrainingLog()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return TrainingLog(losses=_named(rows, "loss/"), learning=_learning(rows))


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


def _learning(rows: Sequence[Mapping[str, Any]]) -> LearningCurve | None:
    curves = _named(rows, "probe/")
    if not curves:
        return None
    steps = next(iter(curves.values()))[0]
    places, rates = _named(rows, "speed/")["steps_per_second"]
    seconds = np.cumsum(np.diff([0.0, *places]) / np.array(rates))
    minutes = np.interp(steps, [0.0, *places], [0.0, *seconds]) / 60
    return LearningCurve(
        steps=steps,
        minutes=minutes.tolist(),
        accuracies={name: values for name, (_, values) in curves.items()},
    )
