"""Samples that a user gives an operator, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sno_dist.errors import DataError

if TYPE_CHECKING:
    from sno_dist.model.operator import ScoreNeuralOperator

__all__ = ["checked"]


def checked(operator: ScoreNeuralOperator, x: Tensor) -> Tensor:
    """Samples, (K, *shape) in data units, on the operator's device.

    Raises:
        DataError: If there are none, or they are of another shape, not finite, or no samples of
            the operator's domain.
    """
    x, shape = torch.as_tensor(x), operator.spec.shape
    if len(x) == 0 or tuple(x.shape[1:]) != shape:
        raise DataError(
            "samples of the wrong shape",
            got=tuple(x.shape),
            expected=f"(K, {', '.join(map(str, shape))}) with K >= 1",
        )
    if x.is_floating_point() and not bool(x.isfinite().all()):
        raise DataError("samples that are not finite", got="NaN or infinity")
    operator.transform.check(x.to(operator.scale))
    return x.to(operator.scale.device)
