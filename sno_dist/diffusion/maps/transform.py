"""Maps as samples meet them: constrained samples y as free coordinates x, checked, and back.

A `Map` is between rows of as many numbers. A transform is between samples of any shape, with any
axes before it, and a composition has one number more than it has free coordinates.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from sno_dist.diffusion.maps.elementwise import box
from sno_dist.diffusion.maps.simplex import LogRatio
from sno_dist.errors import DataError

__all__ = ["Identity", "OntoBox", "OntoSimplex", "Transform"]

SUM_TOLERANCE = 1e-4
"""How far the shares of a composition may add up from 1: rounding, not a remainder left out."""


class Transform(ABC):
    """Interface: y = phi(x) for samples y of a constrained set.

    Attributes:
        shape: Of one sample y.
        free: Of its coordinates x, which may be any numbers.
    """

    def __init__(self, shape: tuple[int, ...], free: tuple[int, ...]) -> None:
        self.shape, self.free = shape, free

    def forward(self, x: Tensor) -> Tensor:
        """Samples y: (..., *free) to (..., *shape), inside also after rounding."""
        # Half precision would do for a network, not for a coordinate.
        with torch.autocast(x.device.type, enabled=False):
            return self._onto(_rows(x, self.free)).reshape(*_before(x, self.free), *self.shape)

    def inverse(self, y: Tensor) -> Tensor:
        """Coordinates x: (..., *shape) to (..., *free)."""
        with torch.autocast(y.device.type, enabled=False):
            return self._from(_rows(y, self.shape)).reshape(*_before(y, self.shape), *self.free)

    @abstractmethod
    def log_det(self, x: Tensor) -> Tensor:
        """Ln |det d phi / d x|, which takes densities of x to those of y: (N, *free) to (N,)."""

    @abstractmethod
    def check(self, y: Tensor, where: str = "") -> None:
        """Refuse samples that have no coordinates.

        Args:
            y: (N, *shape), finite.
            where: What they are samples of, for the message.

        Raises:
            DataError: If a sample is outside of the set or on its edge.
        """

    @abstractmethod
    def _onto(self, rows: Tensor) -> Tensor:
        """(N, entries of free) to (N, entries of shape)."""

    @abstractmethod
    def _from(self, rows: Tensor) -> Tensor:
        """(N, entries of shape) to (N, entries of free)."""


class Identity(Transform):
    """No constraint: x = y.

    Args:
        shape: Of one sample.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__(shape, shape)

    def log_det(self, x: Tensor) -> Tensor:
        """0."""
        return x.new_zeros(len(x))

    def check(self, y: Tensor, where: str = "") -> None:
        """Every sample is its own coordinates."""

    def _onto(self, rows: Tensor) -> Tensor:
        return rows

    def _from(self, rows: Tensor) -> Tensor:
        return rows


class OntoSimplex(Transform):
    """Compositions y, D shares above 0 that add up to 1, as D - 1 log-ratios x.

    Densities are with respect to Lebesgue measure of the first D - 1 shares, as those of Dirichlet
    laws are.

    Args:
        ratios: Of D - 1 coordinates.
    """

    def __init__(self, ratios: LogRatio) -> None:
        shares, free = ratios.basis.shape
        super().__init__((shares,), (free,))
        self.ratios = ratios

    def log_det(self, x: Tensor) -> Tensor:
        """The sum of ln y over all shares, and a constant."""
        return self.ratios.log_det(x)

    def check(self, y: Tensor, where: str = "") -> None:
        """Shares are above 0 and add up to 1.

        Raises:
            DataError: If they do not.
        """
        if bool((wrong := y <= 0).any()):
            raise DataError(
                "a share of a composition is not above 0",
                where=_place(wrong, where),
                got=float(y[wrong][0]),
                expected="shares above 0 that add up to 1",
                fix="replace zeros by less than what is detected, then divide by the sum",
            )
        totals = y.double().sum(1)
        if bool((wrong := (totals - 1).abs() > SUM_TOLERANCE).any()):
            raise DataError(
                "the shares of a composition do not add up to 1",
                where=_place(wrong, where),
                got=f"a sum of {float(totals[wrong][0]):.6g}",
                expected=f"1, give or take {SUM_TOLERANCE:g}",
                fix="divide each sample by its sum, and keep the remainder as a share",
            )

    def _onto(self, rows: Tensor) -> Tensor:
        return self.ratios.shares(rows).clamp_min(torch.finfo(rows.dtype).tiny)

    def _from(self, rows: Tensor) -> Tensor:
        # Of all shares: 1 less the others would lose the digits of a small last one.
        return self.ratios.ratios(rows)


class OntoBox(Transform):
    """Samples whose entries lie between two ends, as their logits.

    Args:
        shape: Of one sample.
        low: The lower ends, of a shape that broadcasts to `shape`.
        high: The upper ends, above them.

    Raises:
        DataError: If an upper end is not above the lower one.
    """

    def __init__(self, shape: tuple[int, ...], low: Tensor, high: Tensor) -> None:
        super().__init__(shape, shape)
        self.low, self.high = (end.double().expand(shape).flatten() for end in (low, high))
        self.map = box(self.low, self.high)

    def log_det(self, x: Tensor) -> Tensor:
        """The sum of ln f', f the logistic function onto each entry's interval."""
        return self.map.log_det(x.flatten(1))

    def check(self, y: Tensor, where: str = "") -> None:
        """Every entry is between its ends, which do not belong to the box.

        Raises:
            DataError: If one is not.
        """
        rows = y.flatten(1)
        low, high = self.low.to(rows), self.high.to(rows)
        if bool((wrong := (rows <= low) | (rows >= high)).any()):
            entry = int(wrong.nonzero()[0, 1])
            raise DataError(
                "a value is not inside of the box",
                where=_place(wrong, where),
                got=f"{float(rows[wrong][0]):.9g}",
                expected=f"above {float(low[entry]):g} and below {float(high[entry]):g}",
                fix="set model.transform.low and .high beyond the data, or drop the sample",
            )

    def _onto(self, rows: Tensor) -> Tensor:
        low, high = self.low.to(rows), self.high.to(rows)
        inside = torch.nextafter(low, high), torch.nextafter(high, low)
        return self.map.forward(rows).clamp(*inside)

    def _from(self, rows: Tensor) -> Tensor:
        return self.map.inverse(rows)


def _rows(samples: Tensor, shape: tuple[int, ...]) -> Tensor:
    return samples.reshape(-1, math.prod(shape))


def _before(samples: Tensor, shape: tuple[int, ...]) -> torch.Size:
    return samples.shape[: samples.dim() - len(shape)]


def _place(wrong: Tensor, where: str) -> str:
    """The first sample, and its entry, that is wrong."""
    names = ("sample", "entry")
    first = [f"{name} {int(at)}" for name, at in zip(names, wrong.nonzero()[0], strict=False)]
    return ", ".join(filter(None, (where, *first)))
