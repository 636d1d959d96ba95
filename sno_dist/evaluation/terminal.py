"""The summary as tables of plain text, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sno_dist.evaluation.comparison import comparison
from sno_dist.evaluation.notation import weights
from sno_dist.evaluation.summary import SPLITS
from sno_dist.evaluation.tables import Cell, Row, by_k, rows

__all__ = ["table"]


def table(summary: Mapping[str, Any]) -> str:
    """The headline figures, a column per split, then those by K, then beside the baselines'.

    Args:
        summary: What `summarise` returns, or the content of summary.json.
    """
    splits = [split for split in SPLITS if summary.get(split)]
    lines = [["", *(f"{name} (K = {summary[name]['k']})" for name in splits)]]
    for row in rows(summary):
        lines += _lines(row)
    by_size = [_by_k(own) for own in by_k(summary)]
    return "\n\n".join([_head(summary), _aligned(lines), *by_size, *_comparison(summary)])


def _head(summary: Mapping[str, Any]) -> str:
    parts = [str(summary["population"])]
    if summary.get("guidance"):
        parts.append(f"guidance {weights(summary['guidance'])}")
    if summary["acceptance"] < 1:
        parts.append(f"acceptance {summary['acceptance']:g}")
    return ", ".join([*parts, f"sampled and scored in {summary['seconds']:.0f} s"])


def _lines(row: Row) -> Iterator[list[str]]:
    """A figure, and beneath it what it is compared with."""
    yield [_title(row.shown.title, row.shown.part), *(_ranged(cell) for cell in row.cells)]
    if any(cell.bound for cell in row.cells):
        yield [_title(row.shown.bound_title, part=True), *(cell.bound for cell in row.cells)]


def _title(title: str, part: bool) -> str:
    return f"  {title}" if part else title


def _ranged(cell: Cell) -> str:
    return f"{cell.value} [{', '.join(cell.interval)}]" if cell.interval else cell.value


def _by_k(own: Mapping[str, Any]) -> str:
    lines = [[f"{own['split']}, K =", *own["ks"]]]
    return _aligned(
        [*lines, *([_title(row["title"], row["part"]), *row["cells"]] for row in own["rows"])]
    )


def _comparison(summary: Mapping[str, Any]) -> list[str]:
    """The table of baselines, or none."""
    methods = comparison(summary)
    if not methods:
        return []
    lines = [["seen / unseen", *methods[0].cells]]
    for own in methods:
        lines.append([own.name, *(" / ".join(cell.values()) for cell in own.cells.values())])
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
