"""Samples as checked float64 rows: the one gate through which data reach the statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sno_dist.errors import DataError

__all__ = ["as_rows"]


def as_rows(samples: NDArray[Any], what: str, minimum: int = 1) -> NDArray[np.float64]:
    """Flatten samples to float64 rows; images of bytes are scaled to [0, 1].

    Args:
        samples: (n, ...) of any real type.
        what: What they are, for the error message, such as "generated samples of 42".
        minimum: How many are needed.

    Returns:
        (n, d) float64.

    Raises:
        DataError: If there are too few samples, or a value is not finite.
    """
    if len(samples) < minimum:
        raise DataError(f"too few {what}", got=len(samples), expected=f"at least {minimum}")
    rows = np.asarray(samples, dtype=np.float64).reshape(len(samples), -1)
    if not np.isfinite(rows).all():
        bad = int((~np.isfinite(rows)).any(axis=1).sum())
        raise DataError(
            f"{what} hold values that are not finite",
            got=f"{bad} of {len(rows)} samples with NaN or infinity",
            fix="look at the samples' source: a diverged model, or damaged data",
        )
    return rows / 255 if samples.dtype == np.uint8 else rows
