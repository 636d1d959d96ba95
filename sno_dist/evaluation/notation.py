"""How figures are written for a person: shares as percentages, numbers to three digits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

__all__ = ["MISSING", "bounds_of", "figure", "in_order", "percent", "weights"]

MISSING = "-"


def bounds_of(
    section: Mapping[str, Any], key: str, write: Callable[[float], str]
) -> tuple[str, ...]:
    """A figure's interval as the texts of its two ends, of which the unit is left out; or none."""
    bounds = section.get(f"{key}_interval") or ()
    return tuple(write(bound).removesuffix(" %") for bound in bounds)


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
