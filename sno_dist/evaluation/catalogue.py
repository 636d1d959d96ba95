"""The figures that a person is shown, in the order in which the terminal and the report do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sno_dist.evaluation.notation import figure, percent

__all__ = ["FIGURES", "Shown"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """One figure of a split.

    Args:
        key: In the split's section of summary.json; "_interval" and "_by_k" are added for those.
        title: What it is called.
        write: As text.
        bound: Key of what it is compared with: a ceiling, a floor, chance; empty: nothing.
        bound_title: What that is called.
        meaning: For who does not know the title.
        column: Its title beside the baselines; empty: not there.
        part: It tells more of the figure before it.
    """

    key: str
    title: str
    write: Callable[[float | None], str] = figure
    bound: str = ""
    bound_title: str = ""
    meaning: str = ""
    column: str = ""
    part: bool = False


FIGURES: Sequence[Shown] = (
    Shown(
        key="accuracy",
        title="accuracy",
        write=percent,
        bound="ceiling",
        bound_title="on real samples",
        meaning="named rightly by the classifier",
        column="accuracy",
    ),
    Shown(
        key="frechet",
        title="Frechet distance",
        bound="frechet_floor",
        bound_title="real against real",
        meaning="lower is better",
        column="Frechet",
    ),
    Shown(
        key="diversity",
        title="diversity (real: 1)",
        meaning="distance between two samples over that between two real ones",
        column="diversity",
    ),
    Shown(
        key="diversity_within",
        title="within a context set",
        meaning="of samples that were drawn from the same context set",
        part=True,
    ),
    Shown(
        key="recall",
        title="recall",
        write=percent,
        bound="recall_ceiling",
        bound_title="real against real",
        meaning="of the real variety",
    ),
    Shown(
        key="precision",
        title="precision",
        write=percent,
        meaning="of the samples, among the real ones",
    ),
    Shown(
        key="mmd",
        title="MMD^2",
        bound="mmd_floor",
        bound_title="real against real",
        meaning="lower is better",
        column="MMD^2",
    ),
    Shown(
        key="mmd_worst_ratio",
        title="worst bandwidth over real",
        meaning="over that of real against real, where this is largest",
        part=True,
    ),
    Shown(
        key="mmd_rejected",
        title="told from real (p <= .05)",
        write=percent,
        bound="mmd_rejected_floor",
        bound_title="real against real",
        meaning="share of distributions, by a permutation test; 5 % by chance",
    ),
    Shown(
        key="copying",
        title="nearest is context",
        write=percent,
        bound="copying_chance",
        bound_title="by chance",
        meaning="copying: share of samples whose nearest real one is of the context set",
        column="copying",
    ),
)
