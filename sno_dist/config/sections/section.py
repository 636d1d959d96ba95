"""What every section of the config is made of."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Fraction", "Natural", "Section"]

Fraction = Annotated[float, Field(ge=0, le=1)]
Natural = Annotated[int, Field(ge=0)]


class Section(BaseModel):
    """A part of the config: immutable, strict about keys and types."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)
