"""The summary's tables as text, which the terminal and the report lay out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sno_dist.evaluation.catalogue import FIGURES, Shown
from sno_dist.evaluation.notation import MISSING, bounds_of, figure, in_order, percent
from sno_dist.evaluation.summary import SPLITS

__all__ = ["Cell", "Row", "by_bandwidth", "by_k", "rows", "tiles"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """A figure of one split.

    Args:
        value: The figure.
        interval: Its ends, or nothing.
        bound: What it is compared with, or nothing.
    """

    value: str
    interval: tuple[str, ...] = ()
    bound: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A figure of all splits.

    Args:
        shown: Which.
        cells: Of the splits that there are.
    """

    shown: Shown
    cells: Sequence[Cell]


SCORE_ERROR = Shown(
    key="score_error",
    title="error of the score",
    write=percent,
    meaning="against the exact one, mean over noise levels",
)


def tiles(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """The few numbers that a reader wants first, of the unseen split where there is one."""
    split = "unseen" if summary.get("unseen") else "seen"
    section = summary.get(split) or {}
    accuracies = section.get("accuracy_by_k", {})
    tiles = [
        {
            "title": f"{split} accuracy, K = {k}",
            "value": percent(accuracies[k]),
            "note": f"real samples {percent(section['ceiling'])}",
        }
        for k in dict.fromkeys([section.get("k"), *in_order(accuracies)[:1]])
        if accuracies.get(k) is not None
    ]
    for title, key in (
        (f"{split} diversity", "diversity"),
        (f"{split} Frechet", "frechet"),
        (f"{split} MMD^2", "mmd"),
    ):
        if section.get(key) is not None and len(tiles) < 4:
            floor = section.get(f"{key}_floor")
            note = "1 is ideal" if floor is None else f"floor {figure(floor)}"
            tiles.append({"title": title, "value": figure(section[key]), "note": note})
    return tiles


def rows(summary: Mapping[str, Any]) -> list[Row]:
    """The main table: a row per figure that there is, a cell per split."""
    present = [split for split in SPLITS if summary.get(split)]
    found = [
        Row(shown=shown, cells=[_cell(summary[split], shown) for split in present])
        for shown in FIGURES
    ]
    if error := summary.get("score_error"):
        means = [Cell(value=percent(error[f"{split}_mean"])) for split in present]
        found.append(Row(shown=SCORE_ERROR, cells=means))
    return [row for row in found if any(cell.value != MISSING for cell in row.cells)]


def _cell(section: Mapping[str, Any], shown: Shown) -> Cell:
    return Cell(
        value=shown.write(section.get(shown.key)),
        interval=bounds_of(section, shown.key, shown.write),
        bound="" if section.get(shown.bound) is None else shown.write(section[shown.bound]),
    )


def by_k(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table per split that was drawn from several K: a column per K, rows of (title, texts)."""
    tables = []
    for split in SPLITS:
        section = summary.get(split)
        if section and len(section["diversity_by_k"]) > 1:
            ks = in_order(section["diversity_by_k"])
            tables.append({"split": split, "ks": ks, "rows": list(_lines(section, ks))})
    return tables


def _lines(section: Mapping[str, Any], ks: Sequence[str]) -> Iterator[dict[str, Any]]:
    for shown in FIGURES:
        bound = {"title": shown.bound_title, "key": shown.bound, "part": True}
        own = {"title": shown.title, "key": shown.key, "part": shown.part}
        for line in (own, bound):
            # a report of before a figure was known lacks it
            values = section.get(f"{line['key']}_by_k", {})
            if any(values.get(k) is not None for k in ks):
                yield line | {"cells": [shown.write(values[k]) for k in ks]}


def by_bandwidth(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """MMD^2 at every bandwidth, so that none is picked: a row each, a cell per split."""
    sections = [summary[split]["mmd_by_bandwidth"] for split in SPLITS if summary.get(split)]
    widths = sorted(sections[0], key=float) if sections else []
    headline = f"{summary['mmd_bandwidth']:g}"
    return [
        {
            "bandwidth": width,
            "headline": width == headline,
            "cells": [
                {"value": figure(section[width]["mmd"]), "floor": figure(section[width]["floor"])}
                for section in sections
            ],
        }
        for width in widths
        if len(widths) > 1
    ]
