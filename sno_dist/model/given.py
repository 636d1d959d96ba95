"""Samples that a user gives an operator, checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sno_dist.errors import DataError
from sno_dist.model.parts import OperatorParts

__all__ = ["checked"]


def checked(operator: OperatorParts, x: Tensor) -> Tensor:
    """Samples, (K, *shape) in data units, on the operator's device.

    Raises:
        DataError: If there are none, or they are of another shape, not finite, or no samples of
            the operator's domain.
    """
    x, shape = _tensor(x), operator.spec.shape
    if len(x) == 0 or tuple(x.shape[1:]) != shape:
        raise DataError(
            "samples of the wrong shape",
            got=tuple(x.shape),
            expected=f"(K, {', '.join(map(str, shape))}) with K >= 1",
        )
    rows = x.to(operator.scale)
    if not bool(rows.isfinite().all()):
        raise DataError("samples that are not finite as float32", got="NaN or infinity")
    if x.is_floating_point() and operator.spec.domain == "image" and 0 < float(rows.max()) <= 1:
        raise DataError(
            "images whose values end at 1",
            got=f"{x.dtype}, at most {float(rows.max()):.3g}",
            expected="0 to 255",
            fix="give bytes, or multiply by 255",
        )
    operator.transform.check(rows)
    return x.to(operator.scale.device)


def _tensor(x: Tensor | NDArray[Any]) -> Tensor:
    if isinstance(x, Tensor):
        return x
    # neither another byte order nor a negative stride is known to torch
    array = np.ascontiguousarray(x)
    return torch.from_numpy(array.astype(array.dtype.newbyteorder("=")))
