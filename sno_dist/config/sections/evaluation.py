"""The judge, and which figures are computed."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, field_validator
from pydantic_core import PydanticCustomError

from sno_dist.config.sections.section import Natural, Section

__all__ = ["Evaluation", "Judge"]


class Judge(Section):
    """The ResNet-18 that judges images, trained on glyphs that the model never sees."""

    path: str | None = Field(
        default=None,
        description="folder to share a judge between runs, of other splits too; none: own",
    )
    seed: Natural = Field(default=0, description="its own, so that runs of other seeds share it")
    width: PositiveInt = Field(default=16, description="channels of the first of four stages")
    epochs: PositiveInt = 3
    min_updates: PositiveInt = Field(
        default=200,
        description="at least so many: with few images, epochs of few batches teach little",
    )
    batch: PositiveInt = 250
    learning_rate: PositiveFloat = 3e-3


class Evaluation(Section):
    """Which figures are computed."""

    bandwidths: Annotated[tuple[PositiveFloat, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="MMD, the first for the headline; none: 1, 1/4, 1/2 and 2 times the median "
        "distance of real samples",
    )
    standardise: bool = Field(
        default=True,
        description="vectors are compared, and bandwidths meant, in deviations of each entry over "
        "the seen training samples, so that none is lost beside one of larger unit; false: as they "
        "are, as vectors with a transform always",
    )
    permutations: Natural = Field(
        default=200, description="of the test whether MMD is beyond chance; 0: no test"
    )
    neighbours: PositiveInt = Field(default=3, description="k of the recall's manifold")
    beside: tuple[str, ...] = Field(
        default=(), description="folders of other runs, whose learning curves the report shows too"
    )
    bootstrap: PositiveInt = Field(default=1000, description="resamples for the intervals")
    score_levels: tuple[PositiveFloat, ...] = Field(
        default=(0.1, 0.2, 0.4, 0.8, 1.6),
        description="sigma / alpha in cells, at which the score is compared with the exact one; "
        "gaussian_mixture without an autoencoder",
    )

    @field_validator("permutations")
    @classmethod
    def _enough_for_a_level(cls, count: int) -> int:
        # the least p-value is 1 / (1 + count)
        if 0 < count < 19:
            raise PydanticCustomError("few", "0, or 19 or more: fewer never reach 5 %")
        return count
