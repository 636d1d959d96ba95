"""Deterministic Fourier quadrature of the Gaussian kernel: few dimensions, any accuracy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from sno_dist.embedding.feature_map import FeatureMap
from sno_dist.embedding.features import Sums

__all__ = ["FourierQuadrature", "axis_rule"]

VALUES = 1 << 19
"""Waves of one axis, or products of waves, that are held at a time: 4 MiB."""


def axis_rule(extent: float, bandwidth: float, error: float) -> tuple[float, int]:
    """Step and order of the trapezoid rule along one axis.

    Equation: tau = sqrt(2 ln(4 / error)), h = 2 pi / (extent + bandwidth tau),
    J = ceil(tau / (bandwidth h)). By Poisson's sum the rule is the periodised kernel, so that
    for differences up to `extent` aliasing adds error / 2 at most, and the terms left out
    error / 4.

    Args:
        extent: Largest difference of two coordinates.
        bandwidth: Of the kernel.
        error: Largest error of the kernel along this axis.

    Returns:
        h and J.
    """
    tau = math.sqrt(2 * math.log(4 / error))
    step = 2 * math.pi / (extent + bandwidth * tau)
    return step, math.ceil(tau / (bandwidth * step))


class FourierQuadrature(FeatureMap):
    """Trapezoid features of the Gaussian kernel, the product over axes of 2J + 1 waves.

    Equation: per axis [1, cos jhx, sin jhx] for j = 1..J, weighed by the roots of
    w_0 and 2 w_j, w_j = h l / sqrt(2 pi) exp(-(l j h)^2 / 2). The weights wait until after the
    averaging, and the sum over a set of products of waves is one matrix product, so that no
    sample ever has all m features.

    Args:
        bandwidth: () l.
        extent: (D,) largest coordinate difference for which the error holds; beyond it the
            periodic kernel wraps around.
        error: () largest error of the kernel.
    """

    bandwidth: Tensor
    extent: Tensor
    error: Tensor

    def __init__(self, bandwidth: Tensor, extent: Tensor, error: Tensor) -> None:
        super().__init__()
        self.register_buffer("bandwidth", bandwidth.clone())
        self.register_buffer("extent", extent.clone())
        self.register_buffer("error", error.clone())
        share = float(error) / len(extent)
        rules = [axis_rule(side, float(bandwidth), share) for side in extent.tolist()]
        self.steps = [step for step, _ in rules]
        self.order = max(order for _, order in rules)

    @property
    def size(self) -> int:
        """M."""
        return (2 * self.order + 1) ** len(self.steps)

    def forward(self, x: Tensor) -> Tensor:
        """(n, D) to (n, m)."""
        space = x.new_empty(len(self.steps), len(x) * (2 * self.order + 1))
        return _product(self._waves(x[None], space)).squeeze(0).T

    def sums(self, x: Tensor, lengths: Tensor) -> Sums:
        """Without a row for every sample: products over all axes but the last, then a matmul.

        Sets are taken a few at a time, so that what is computed of them stays in the cache.
        """
        sizes = lengths.tolist()
        total = x.new_empty(len(sizes), self.size)
        parts, groups = x[: sum(sizes)].split(sizes), list(self._groups(sizes))
        # One piece of memory for all groups: fresh pages cost more than what is written to them.
        held = max(len(group) * max(sizes[item] for item in group) for group in groups)
        space = x.new_empty(len(self.steps), held * (2 * self.order + 1))
        for group in groups:
            padded = nn.utils.rnn.pad_sequence([parts[item] for item in group], batch_first=True)
            *front, last = self._waves(padded, space)
            left = _product(front) if front else torch.ones_like(last[:, :1])
            for row, item in enumerate(group):
                left[row, :, sizes[item] :] = 0
            out = total[group.start : group.stop].view(len(group), left.shape[1], -1)
            torch.bmm(left, last.transpose(1, 2), out=out)
        return Sums(total=total, count=lengths.to(total))

    def _groups(self, sizes: Sequence[int]) -> Iterator[range]:
        """Neighbouring sets of at most VALUES numbers together, one set at least in each."""
        most = VALUES // (2 * self.order + 1) ** max(1, len(self.steps) - 1)
        first, longest = 0, 0
        for item, size in enumerate(sizes):
            longest = max(longest, size)
            if item > first and longest * (item + 1 - first) > most:
                yield range(first, item)
                first, longest = item, size
        yield range(first, len(sizes))

    def weigh(self, mean: Tensor) -> Tensor:
        """By the roots of the quadrature's weights."""
        return mean * self._weights().to(mean)

    def _waves(self, x: Tensor, space: Tensor) -> list[Tensor]:
        """[1, cos jhx, sin jhx] of each axis of (G, n, D): D tensors (G, 2J + 1, n) in `space`."""
        found, shape = [], (len(x), 2 * self.order + 1, x.shape[1])
        for axis, step in enumerate(self.steps):
            waves = space[axis, : math.prod(shape)].view(shape)
            waves[:, 0] = 1
            cosines, sines = waves[:, 1 : self.order + 1], waves[:, self.order + 1 :]
            _multiples(step * x[..., axis], cosines, sines)
            found.append(waves)
        return found

    def _weights(self) -> Tensor:
        bandwidth, whole = float(self.bandwidth), torch.ones(1, dtype=torch.float64)
        for step in self.steps:
            waves = bandwidth * step * torch.arange(self.order + 1, dtype=torch.float64)
            weights = (step * bandwidth / math.sqrt(2 * math.pi)) * (-0.5 * waves.square()).exp()
            axis = torch.cat([weights[:1], 2 * weights[1:], 2 * weights[1:]]).sqrt()
            whole = torch.outer(whole, axis).flatten()
        return whole


def _product(axes: Sequence[Tensor]) -> Tensor:
    """Products of the waves of all axes: D tensors (G, w, n) to (G, w^D, n)."""
    first, *rest = axes
    for waves in rest:
        first = (first[:, :, None] * waves[:, None]).flatten(1, 2)
    return first


def _multiples(angle: Tensor, cosines: Tensor, sines: Tensor) -> None:
    """Fill in the cosines and sines of 1..J times an angle (G, n): (G, J, n) each.

    Twice as many at a time, by the addition theorem: a few multiplications instead of a
    transcendental, and rounding that grows as the logarithm of J.
    """
    cosines[:, 0], sines[:, 0] = angle.cos(), angle.sin()
    known, order = 1, cosines.shape[1]
    while known < order:
        count = min(known, order - known)
        c, s = cosines[:, known - 1 : known], sines[:, known - 1 : known]
        new = slice(known, known + count)
        torch.mul(cosines[:, :count], c, out=cosines[:, new]).addcmul_(
            sines[:, :count], s, value=-1
        )
        torch.mul(sines[:, :count], c, out=sines[:, new]).addcmul_(cosines[:, :count], s)
        known += count
