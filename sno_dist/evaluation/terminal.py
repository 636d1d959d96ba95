"""The summary as a table of plain text, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sno_dist.evaluation.comparison import comparison
from sno_dist.evaluation.notation import MISSING, figure, in_order, percent, ranged, weights
from sno_dist.evaluation.summary import SPLITS

__all__ = ["table"]

ROWS = (
    ("accuracy", "accuracy", True),
    ("  on real samples", "ceiling", True),
    ("Frechet distance", "frechet", False),
    ("  real against real", "frechet_floor", False),
    ("diversity (real: 1)", "diversity", False),
    ("recall", "recall", True),
    ("  real against real", "recall_ceiling", True),
    ("precision", "precision", True),
    ("MMD^2", "mmd", False),
    ("  real against real", "mmd_floor", False),
    ("  worst bandwidth over real", "mmd_worst_ratio", False),
    ("told from real (p <= .05)", "mmd_rejected", True),
    ("  real against real", "mmd_rejected_floor", True),
    ("nearest is context", "copying", True),
    ("  by chance", "copying_chance", True),
)


def table(summary: Mapping[str, Any]) -> str:
    """The headline figures, a column per split, then those by K, then beside the baselines'.

    Args:
        summary: What `summarise` returns, or the content of summary.json.
    """
    splits = [split for split in SPLITS if summary.get(split)]
    lines = [["", *(f"{name} (K = {summary[name]['k']})" for name in splits)]]
    for title, key, share in ROWS:
        cells = [ranged(summary[split], key, share) for split in splits]
        if title.startswith(" "):  # a bound, shown for comparison alone
            cells = [cell.partition(" [")[0] for cell in cells]
        if any(cell != MISSING for cell in cells):
            lines.append([title, *cells])
    if error := summary.get("score_error"):
        lines.append(["error of the score", *(percent(error[f"{s}_mean"]) for s in splits)])
    blocks = [_head(summary), _aligned(lines)]
    by_size = [
        _by_k(split, summary[split])
        for split in splits
        if len(summary[split]["diversity_by_k"]) > 1
    ]
    return "\n\n".join([*blocks, *by_size, *_comparison(summary)])


def _head(summary: Mapping[str, Any]) -> str:
    parts = [str(summary["population"])]
    if summary.get("guidance"):
        parts.append(f"guidance {weights(summary['guidance'])}")
    if summary["acceptance"] < 1:
        parts.append(f"acceptance {summary['acceptance']:g}")
    return ", ".join([*parts, f"sampled and scored in {summary['seconds']:.0f} s"])


def _by_k(split: str, section: Mapping[str, Any]) -> str:
    ks = in_order(section["diversity_by_k"])
    lines = [[f"{split}, K =", *ks]]
    for title, key, write in (
        ("accuracy", "accuracy_by_k", percent),
        ("diversity", "diversity_by_k", figure),
        ("  within a context set", "diversity_within_by_k", figure),
        ("Frechet", "frechet_by_k", figure),
        ("MMD^2", "mmd_by_k", figure),
        ("nearest is context", "copying_by_k", percent),
        ("  by chance", "copying_chance_by_k", percent),
    ):
        values = section.get(key, {})  # a report of before a figure was known lacks it
        if any(values.get(k) is not None for k in ks):
            lines.append([title, *(write(values[k]) for k in ks)])
    return _aligned(lines)


def _comparison(summary: Mapping[str, Any]) -> list[str]:
    """The table of baselines, or none."""
    rows = comparison(summary)
    if not rows:
        return []
    lines = [["seen / unseen", *rows[0].cells]]
    for row in rows:
        lines.append([row.method, *(" / ".join(cell.values()) for cell in row.cells.values())])
    return [_aligned(lines)]


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
