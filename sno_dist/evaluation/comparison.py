"""The operator beside the baselines: the few figures that tell what learning an operator brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sno_dist.evaluation.notation import MISSING, figure, percent
from sno_dist.evaluation.summary import SPLITS

__all__ = ["COLUMNS", "Row", "comparison"]

COLUMNS: Mapping[str, tuple[str, Callable[[float | None], str]]] = {
    "accuracy": ("accuracy", percent),
    "MMD^2": ("mmd", figure),
    "Frechet": ("frechet", figure),
    "diversity": ("diversity", figure),
    "copying": ("copying", percent),
}
"""Title -> key in a split's section, and how it is written."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One method.

    Args:
        method: Its name.
        cells: Column -> split -> the figure as text.
    """

    method: str
    cells: Mapping[str, Mapping[str, str]]


def comparison(summary: Mapping[str, Any]) -> list[Row]:
    """The operator and every baseline at their largest K; nothing where there is no baseline.

    Args:
        summary: What `summarise` returns, or the content of summary.json.
    """
    baselines: Mapping[str, Any] = summary.get("baselines", {})
    if not baselines:
        return []
    rows = [_row("operator", summary), *(_row(name, own) for name, own in baselines.items())]
    known = [
        title
        for title in COLUMNS
        if any(text != MISSING for row in rows for text in row.cells[title].values())
    ]
    return [Row(method=row.method, cells={t: row.cells[t] for t in known}) for row in rows]


def _row(method: str, sections: Mapping[str, Any]) -> Row:
    cells = {
        title: {split: write((sections.get(split) or {}).get(key)) for split in SPLITS}
        for title, (key, write) in COLUMNS.items()
    }
    return Row(method=method, cells=cells)
