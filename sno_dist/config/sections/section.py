"""What every section of the config is made of."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

__all__ = ["Ascending", "Distinct", "Fraction", "Natural", "Section"]

Fraction = Annotated[float, Field(ge=0, le=1)]
Natural = Annotated[int, Field(ge=0)]


def _ascending(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if list(values) != sorted(values):
        raise PydanticCustomError("order", "the smaller first")
    return values


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(set(values)) < len(values):
        raise PydanticCustomError("twice", "each value once")
    return values


Ascending, Distinct = AfterValidator(_ascending), AfterValidator(_distinct)
"""Of a tuple's values."""


class Section(BaseModel):
    """A part of the config: immutable, strict about keys and types."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False
    )
