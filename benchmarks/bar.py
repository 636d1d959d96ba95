"""Stands where the training loop has its progress bar, to be told of each step."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Literal

__all__ = ["Bar"]


class Bar(ABC):
    """Made, entered and advanced as `Progress` is; shows nothing."""

    def __call__(self, total: int, label: str, *, done: int = 0) -> Bar:
        """As `Progress` is made."""
        del total, label, done
        return self

    def __enter__(self) -> Bar:
        self.begin()
        return self

    def __exit__(self, *error: object) -> Literal[False]:
        return False

    @abstractmethod
    def begin(self) -> None:
        """Called before the first step."""

    @abstractmethod
    def advance(self, count: int = 1, note: str = "") -> None:
        """Called after each step."""
