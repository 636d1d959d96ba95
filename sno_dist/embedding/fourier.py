"""Deterministic Fourier quadrature of the Gaussian kernel: few dimensions, any accuracy."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sno_dist.embedding.feature_map import FeatureMap
from sno_dist.embedding.features import Sums

__all__ = ["FourierQuadrature", "axis_rule"]


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
        self.rules = [axis_rule(side, float(bandwidth), share) for side in extent.tolist()]

    @property
    def size(self) -> int:
        """M."""
        return math.prod(2 * order + 1 for _, order in self.rules)

    def forward(self, x: Tensor) -> Tensor:
        """(n, D) to (n, m)."""
        first, *rest = self._waves(x)
        for waves in rest:
            first = (first[:, :, None] * waves[:, None, :]).flatten(1)
        return first

    def sums(self, x: Tensor, lengths: Tensor) -> Sums:
        """Without a row for every sample: products over all axes but the last, then a matmul."""
        sizes = lengths.tolist()
        *front, last = self._waves(x[: sum(sizes)])
        if not front:
            front = [torch.ones_like(last[:, :1])]
        total = x.new_empty(len(sizes), self.size)
        start = 0
        for row, size in zip(total, sizes, strict=True):
            stop = start + size
            left = front[0][start:stop]
            for waves in front[1:]:
                left = (left[:, :, None] * waves[start:stop, None, :]).flatten(1)
            torch.mm(left.T, last[start:stop], out=row.view(left.shape[1], -1))
            start = stop
        return Sums(total=total, count=lengths.to(total))

    def weigh(self, mean: Tensor) -> Tensor:
        """By the roots of the quadrature's weights."""
        return mean * self._weights().to(mean)

    def _waves(self, x: Tensor) -> list[Tensor]:
        """[1, cos jhx, sin jhx] of each axis: D tensors (n, 2J + 1)."""
        found = []
        for axis, (step, order) in enumerate(self.rules):
            waves = x.new_empty(len(x), 2 * order + 1)
            angles = step * torch.outer(x[:, axis], torch.arange(1, order + 1).to(x))
            waves[:, 0] = 1
            torch.cos(angles, out=waves[:, 1 : order + 1])
            torch.sin(angles, out=waves[:, order + 1 :])
            found.append(waves)
        return found

    def _weights(self) -> Tensor:
        bandwidth, whole = float(self.bandwidth), torch.ones(1, dtype=torch.float64)
        for step, order in self.rules:
            waves = bandwidth * step * torch.arange(order + 1, dtype=torch.float64)
            weights = (step * bandwidth / math.sqrt(2 * math.pi)) * (-0.5 * waves.square()).exp()
            axis = torch.cat([weights[:1], 2 * weights[1:], 2 * weights[1:]]).sqrt()
            whole = torch.outer(whole, axis).flatten()
        return whole
