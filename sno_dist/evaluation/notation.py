"""How figures are written for a person: shares as percentages, numbers to three digits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["MISSING", "figure", "percent", "ranged"]

MISSING = "-"


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
