"""Local covariances that gradients can move: from a network on the centres, or each its own."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from sno_dist.diffusion.covariance import CholeskyPrecision, Covariance, Diagonal, LowRank

__all__ = ["Form", "Precisions"]

Form = Literal["full", "diagonal", "low_rank"]

DEPTH = 3
"""GELU layers of the network."""

FLOOR = 1e-2
"""Epsilon of L L' + epsilon I, in units of the kernel density estimate's precision."""

START = 0.5
"""Singular values of U at first, in bandwidths: at 0 its gradient would vanish."""


class Precisions(nn.Module):
    """Covariances of the centres of R rows, each row by parameters of its own.

    Equation: full, S^-1 = (L L' + epsilon I) / h^2 with L = I + tril(o); diagonal,
    S = h^2 diag(exp o); low rank, S = h^2 (diag(exp o) + U U'). o = psi(Z) of a perceptron that
    begins at 0, so that the fit begins near the kernel density estimate of bandwidth h (at it where
    diagonal; a low rank begins at U U' = START^2 on as many axes); or o free.

    Args:
        centres: (R, C, D), those of a set around 0.
        bandwidth: (R,) h.
        scale: (R,) deviations of the sets, in units of which the network sees the centres.
        form: Of the covariances.
        rank: Of "low_rank".
        width: Of the network's layers; 0: o is free, and tells nothing of other centres.
        sources: Of the network's first weights, one for each of R / M sets.
    """

    def __init__(
        self,
        centres: Tensor,
        bandwidth: Tensor,
        *,
        scale: Tensor,
        form: Form,
        rank: int,
        width: int,
        sources: Sequence[np.random.Generator],
    ) -> None:
        super().__init__()
        rows, count, dims = centres.shape
        self._form: Form = form
        self._rank, self.bandwidth = rank, bandwidth
        exits = {"full": dims * (dims + 1) // 2, "diagonal": dims, "low_rank": dims * (1 + rank)}
        self._inputs = centres / scale[:, None, None]
        sizes = [dims, *[width] * DEPTH, exits[form]] if width else []
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for entries, leaving in itertools.pairwise(sizes):
            self.weights.append(centres.new_zeros(rows, entries, leaving))
            self.biases.append(centres.new_zeros(rows, 1, leaving))
        if not width:
            self.biases.append(centres.new_zeros(rows, count, exits[form]))
        self._begin(sources)

    def forward(self) -> Covariance:
        """Of all centres."""
        out, dims = self._out(), self._inputs.shape[2]
        h = self.bandwidth[:, None, None]
        if self._form == "diagonal":
            return Diagonal((h.square() * out.exp())[:, None])
        if self._form == "low_rank":
            axes = torch.eye(dims, self._rank).to(out)
            factor = out[..., dims:].unflatten(2, (dims, self._rank)) + START * axes
            variances = h.square() * out[..., :dims].exp()
            return LowRank(variances[:, None], (h[..., None] * factor)[:, None])
        rows, columns = torch.tril_indices(dims, dims, device=out.device)
        lower = torch.eye(dims).to(out).expand(*out.shape[:2], -1, -1).clone()
        lower[..., rows, columns] = lower[..., rows, columns] + out
        factor = CholeskyPrecision.regularised(lower[:, None], FLOOR).factor
        return CholeskyPrecision(factor / h[:, None, :, None])

    def _out(self) -> Tensor:
        """O, (R, C, exits)."""
        hidden, last = self._inputs, len(self.weights) - 1
        if last < 0:
            return self.biases[0]
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            hidden = hidden if layer == last else nn.functional.gelu(hidden)
        return hidden

    @torch.no_grad()
    def _begin(self, sources: Sequence[np.random.Generator]) -> None:
        """Weights of all layers but the last of variance 1 / entries."""
        for weight in list(self.weights)[:-1]:
            for rows, source in zip(weight.chunk(len(sources)), sources, strict=True):
                normals = source.standard_normal(rows.shape) / weight.shape[1] ** 0.5
                rows.copy_(torch.from_numpy(normals))
