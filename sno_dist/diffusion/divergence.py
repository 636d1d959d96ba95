"""The one product e'J e on which every estimate of a divergence rests."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["divergence", "probed"]


def probed(field: Tensor, x: Tensor, probe: Tensor, *, graph: bool = False) -> Tensor:
    """The product e'J e, J the Jacobian of a field: (N,).

    Its mean over independent e of mean 0 and covariance 1 is the field's divergence (Hutchinson
    1989); Rademacher signs have the least variance of all such e.

    Args:
        field: (N, d) values computed from x, row by row.
        x: (N, d) that requires a gradient.
        probe: e, (N, d).
        graph: Whether the result is to be differentiated; the field's own graph is kept anyway.

    Cost: one vector-Jacobian product.
    """
    (row,) = torch.autograd.grad(
        field, x, probe, retain_graph=True, create_graph=graph, materialize_grads=True
    )
    return (row * probe).sum(1)


def divergence(field: Tensor, x: Tensor, *, graph: bool = False) -> Tensor:
    """The exact divergence, the sum of e'J e over the d axes: (N,); see `probed`."""
    axes = torch.eye(x.shape[1]).to(x)
    rows = [probed(field, x, axis.expand_as(x), graph=graph) for axis in axes]
    return torch.stack(rows).sum(0)
