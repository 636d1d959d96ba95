"""How figures are written for a person: shares as percentages, numbers to three digits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["MISSING", "figure", "in_order", "percent", "ranged", "weights"]

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


def weights(values: Mapping[str, float]) -> str:
    """Guidance by K: one number if all are equal, else each with its K, the smallest K first."""
    if len(set(values.values())) == 1:
        return f"{next(iter(values.values())):g}"
    return ", ".join(f"{values[k]:g} (K = {k})" for k in in_order(values))


def in_order(ks: Iterable[str]) -> list[str]:
    """Sizes of context sets, "all" last; JSON files have them in alphabetical order."""
    return sorted(ks, key=lambda k: float(k) if k.isdigit() else math.inf)


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
