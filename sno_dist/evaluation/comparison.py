"""The operator beside the baselines: the few figures that tell what learning an operator brings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sno_dist.evaluation.catalogue import FIGURES
from sno_dist.evaluation.notation import MISSING
from sno_dist.evaluation.summary import SPLITS

__all__ = ["Method", "comparison"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One method's figures.

    Args:
        name: Its name.
        cells: Column -> split -> the figure as text.
    """

    name: str
    cells: Mapping[str, Mapping[str, str]]


def comparison(summary: Mapping[str, Any]) -> list[Method]:
    """The operator and every baseline at their largest K; nothing where there is no baseline.

    Args:
        summary: What `summarise` returns, or the content of summary.json.
    """
    baselines: Mapping[str, Any] = summary.get("baselines", {})
    if not baselines:
        return []
    methods = {"operator": summary, **baselines}
    cells = {name: _cells(sections) for name, sections in methods.items()}
    known = {
        column
        for own in cells.values()
        for column, texts in own.items()
        if any(text != MISSING for text in texts.values())
    }
    return [
        Method(name=name, cells={column: own[column] for column in own if column in known})
        for name, own in cells.items()
    ]


def _cells(sections: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    return {
        shown.column: {
            split: shown.write((sections.get(split) or {}).get(shown.key)) for split in SPLITS
        }
        for shown in FIGURES
        if shown.column
    }
