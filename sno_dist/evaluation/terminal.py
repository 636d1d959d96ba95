"""The summary as a table of plain text, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sno_dist.evaluation.summary import SPLITS

__all__ = ["figure", "percent", "ranged", "table"]

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
    ("nearest is context", "copying", True),
    ("  by chance", "copying_chance", True),
)
MISSING = "-"


def table(summary: Mapping[str, Any]) -> str:
    """The headline figures, a column per split, then the unseen accuracy by K.

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
    blocks = [_head(summary), _aligned(lines)]
    by_k = [_by_k(split, summary[split]) for split in splits if len(_ks(summary[split])) > 1]
    return "\n\n".join([*blocks, *by_k])


def ranged(section: Mapping[str, Any], key: str, share: bool) -> str:
    """One figure of a section with its interval, or a dash."""
    value, bounds = section.get(key), section.get(f"{key}_interval")
    write = percent if share else figure
    if value is None:
        return MISSING
    if bounds is None:
        return write(value)
    low, high = (write(bound).removesuffix(" %") for bound in bounds)
    return f"{write(value)} [{low}, {high}]"


def percent(value: float | None) -> str:
    """A share as a percentage with one decimal."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def figure(value: float | None) -> str:
    """A number with three significant digits, or four decimals where it is tiny."""
    if value is None:
        return MISSING
    if abs(value) < 0.01:
        return f"{value:.4f}"
    return f"{value:#.3g}" if abs(value) < 100 else f"{value:.0f}"


def _head(summary: Mapping[str, Any]) -> str:
    parts = [str(summary["population"])]
    if summary.get("guidance") is not None:
        parts.append(f"guidance {summary['guidance']:g}")
    return ", ".join([*parts, f"scored in {summary['seconds']:.0f} s"])


def _ks(section: Mapping[str, Any]) -> list[str]:
    return list(section["diversity_by_k"])


def _by_k(split: str, section: Mapping[str, Any]) -> str:
    ks = _ks(section)
    lines = [[f"{split}, K =", *ks]]
    for title, key, write in (
        ("accuracy", "accuracy_by_k", percent),
        ("diversity", "diversity_by_k", figure),
        ("Frechet", "frechet_by_k", figure),
        ("MMD^2", "mmd_by_k", figure),
        ("nearest is context", "copying_by_k", percent),
        ("  by chance", "copying_chance_by_k", percent),
    ):
        values = section[key]
        if any(values[k] is not None for k in ks):
            lines.append([title, *(write(values[k]) for k in ks)])
    return _aligned(lines)


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
