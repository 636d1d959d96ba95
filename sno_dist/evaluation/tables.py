"""The report's tables, as rows of text that the template lays out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sno_dist.evaluation.notation import MISSING, figure, in_order, percent, ranged
from sno_dist.evaluation.summary import SPLITS

__all__ = ["by_bandwidth", "by_k", "rows", "tiles"]

ROWS = (
    ("Accuracy", "accuracy", True, "ceiling", "real samples", "named rightly by the classifier"),
    ("Frechet distance", "frechet", False, "frechet_floor", "real against real", "lower is better"),
    ("Diversity", "diversity", False, None, "", "spread over that of real samples; 1 is ideal"),
    (
        "Recall",
        "recall",
        True,
        "recall_ceiling",
        "real against real",
        "of the real variety",
    ),
    ("Precision", "precision", True, None, "", "of the samples, among the real ones"),
    ("MMD\N{SUPERSCRIPT TWO}", "mmd", False, "mmd_floor", "real against real", "lower is better"),
    (
        "Told from real",
        "mmd_rejected",
        True,
        "mmd_rejected_floor",
        "real against real",
        "distributions with p at most 0.05 in a permutation test; 5 % by chance",
    ),
    ("Copying", "copying", True, "copying_chance", "by chance", "nearest sample is a context one"),
)
CHANCE = ("Copying by chance", "copying_chance", True)
WITHIN = ("Diversity within a context set", "diversity_within", False)


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
        (f"{split} MMD\N{SUPERSCRIPT TWO}", "mmd"),
    ):
        if section.get(key) is not None and len(tiles) < 4:
            floor = section.get(f"{key}_floor")
            note = "1 is ideal" if floor is None else f"floor {figure(floor)}"
            tiles.append({"title": title, "value": figure(section[key]), "note": note})
    return tiles


def rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The main table: a row per figure that there is, a cell per split."""
    sections = [summary[split] for split in SPLITS if summary.get(split)]
    found = []
    for title, key, share, bound, bound_title, meaning in ROWS:
        cells = [_cell(section, key, share, bound, bound_title) for section in sections]
        if any(cell["value"] != MISSING for cell in cells):
            found.append({"title": title, "meaning": meaning, "cells": cells})
    if error := summary.get("score_error"):
        means = [percent(error[f"{split}_mean"]) for split in SPLITS if summary.get(split)]
        found.append(
            {
                "title": "Error of the score",
                "meaning": "against the exact one, mean over noise levels",
                "cells": [{"value": mean, "interval": "", "bound": ""} for mean in means],
            }
        )
    return found


def _cell(
    section: Mapping[str, Any], key: str, share: bool, bound: str | None, bound_title: str
) -> dict[str, str]:
    value, _, interval = ranged(section, key, share).partition(" [")
    write = percent if share else figure
    limit = None if bound is None else section.get(bound)
    return {
        "value": value,
        "interval": interval.rstrip("]").replace(", ", " to "),
        "bound": "" if limit is None else f"{bound_title} {write(limit)}",
    }


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


def by_k(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table per split: a column per K."""
    tables = []
    for split in SPLITS:
        section = summary.get(split)
        if not section or len(section["diversity_by_k"]) < 2:
            continue
        ks = in_order(section["diversity_by_k"])
        rows = []
        for title, key, share in (*(row[:3] for row in ROWS), CHANCE, WITHIN):
            values = section.get(f"{key}_by_k", {})
            write = percent if share else figure
            if any(values.get(k) is not None for k in ks):
                rows.append({"title": title, "cells": [write(values[k]) for k in ks]})
        tables.append({"split": split, "ks": ks, "rows": rows})
    return tables
