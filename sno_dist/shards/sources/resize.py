"""Bilinear, antialiased resizing of uint8 images, the same bit for bit on every machine."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["axis_weights", "resize"]

_UNIT = 2.0**20
_CHUNK = 1024  # images in float64 at once, to bound memory


@lru_cache(maxsize=64)
def axis_weights(given: int, wanted: int) -> NDArray[np.float64]:
    """The matrix that resizes one axis, as PIL's BILINEAR and torch's `antialias=True` do.

    Output pixel i is centred at c = (i + 1/2) s with s = given / wanted; input pixel j weighs
    max(0, 1 - |j + 1/2 - c| / max(s, 1)), rows normalised to 1. Shrinking thus widens the
    triangle (that is the antialiasing) and enlarging is plain bilinear interpolation.

    Weights are multiples of 2**-20. A pixel times two weights then fits in 48 bits, so float64
    sums of them are exact whatever the order of summation.

    Args:
        given: Pixels before.
        wanted: Pixels after.

    Returns:
        (wanted, given), read-only; each row sums to exactly 1.
    """
    scale = given / wanted
    centres = (np.arange(wanted) + 0.5) * scale
    offsets = (np.arange(given) + 0.5)[None, :] - centres[:, None]
    triangle = np.maximum(0.0, 1.0 - np.abs(offsets) / max(scale, 1.0))
    units = np.rint(triangle / triangle.sum(axis=1, keepdims=True) * _UNIT)
    # The rounding error of a row goes to its largest weight: constants stay constant.
    units[np.arange(wanted), units.argmax(axis=1)] += _UNIT - units.sum(axis=1)
    weights: NDArray[np.float64] = units / _UNIT
    weights.setflags(write=False)
    return weights


def resize(images: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize the last two axes; one rounding, at the end, halves upwards.

    Args:
        images: (..., H, W).
        height: Pixels wanted in the axis before the last.
        width: Pixels wanted in the last axis.

    Returns:
        (..., height, width).
    """
    if images.shape[-2:] == (height, width):
        return images
    flat = images.reshape(-1, *images.shape[-2:])
    rows = axis_weights(images.shape[-2], height)
    columns = axis_weights(images.shape[-1], width).T
    out = np.empty((len(flat), height, width), np.uint8)
    for start in range(0, len(flat), _CHUNK):
        part = flat[start : start + _CHUNK].astype(np.float64)
        out[start : start + _CHUNK] = np.floor(rows @ (part @ columns) + 0.5)
    return out.reshape(*images.shape[:-2], height, width)
