"""Under which conditions a distribution's samples were drawn, read off a sample set's keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from sno_dist.sampling.plan import Method, label
from sno_dist.shards.manifest import Entry

__all__ = ["Condition", "conditions"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Condition:
    """What drew samples, and from how much.

    Args:
        method: "operator", or a baseline.
        k: Context samples; none: all there were.
    """

    method: Method = "operator"
    k: int | None = None

    def key(self, entry: Entry) -> str:
        """Where a sample set has the samples of a distribution."""
        return f"{entry.split}/{label(self.k, self.method)}/{entry.name}"


def conditions(keys: Iterable[str]) -> Mapping[tuple[str, str], list[Condition]]:
    """(split, name) -> the conditions that there are samples of.

    Args:
        keys: "split/label/name", see `sampling.plan.label`.
    """
    found: dict[tuple[str, str], list[Condition]] = {}
    for key in keys:
        split, own, name = key.split("/", 2)
        found.setdefault((split, name), []).append(_condition(own))
    return found


def _condition(own: str) -> Condition:
    method, _, size = own.rpartition("-")
    k = None if size == "all" else int(size.removeprefix("k"))
    return Condition(method=cast("Method", method or "operator"), k=k)
