"""Pictures of samples for the report: image grids and scatter panels, as PNG data URIs."""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from sno_dist.errors import DataError

__all__ = ["Frame", "frame_of", "grid_columns", "image_grid", "scatter"]

Frame = tuple[float, float, float, float]
"""Left, right, bottom and top of a scatter panel."""

GAP = 1
"""Pixels between images."""

MARGIN = 0.05
"""Around points, of their extent."""


def image_grid(images: NDArray[Any]) -> str:
    """Images side by side, one pixel of nothing between them, at their own resolution.

    Args:
        images: (n, C, H, W) of 1 or 3 channels, uint8 or floats in [0, 1]; n >= 1.

    Returns:
        A PNG data URI; the page enlarges it without smoothing.

    Raises:
        DataError: If there are no images, or they have neither 1 nor 3 channels.
    """
    if images.ndim != 4 or not len(images) or images.shape[1] not in (1, 3):
        raise DataError(
            "no image grid can be drawn", got=images.shape, expected="(n > 0, 1 or 3, H, W)"
        )
    count, _, height, width = images.shape
    columns = grid_columns(images)
    rows = math.ceil(count / columns)
    sheet = np.zeros((rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 4), np.uint8)
    for index, picture in enumerate(_bytes(images)):
        top, left = divmod(index, columns)
        top, left = top * (height + GAP), left * (width + GAP)
        cell = sheet[top : top + height, left : left + width]
        cell[..., :3] = picture.transpose(1, 2, 0)
        cell[..., 3] = 255
    stream = io.BytesIO()
    Image.fromarray(sheet).save(stream, "PNG", optimize=True)
    return _uri(stream.getvalue())


def grid_columns(images: NDArray[Any]) -> int:
    """Images in a row that make their grid about square."""
    count, _, height, width = images.shape
    return max(1, min(count, round(math.sqrt(count * height / width))))


def frame_of(points: NDArray[Any]) -> Frame:
    """The square around the first two of (n, d) coordinates, so that panels share a frame.

    Of one coordinate alone the range is that of both sides.
    """
    plane = points[:, :2] if points.shape[1] > 1 else np.repeat(points, 2, axis=1)
    low, high = plane.min(axis=0), plane.max(axis=0)
    centre, half = (low + high) / 2, (0.5 + MARGIN) * max(float((high - low).max()), 1e-12)
    return (
        float(centre[0] - half),
        float(centre[0] + half),
        float(centre[1] - half),
        float(centre[1] + half),
    )


def scatter(points: NDArray[Any], frame: Frame, colour: str) -> str:
    """The first two coordinates of samples, on nothing, so that it suits a light and a dark page.

    A single coordinate is drawn against the place in the set.

    Args:
        points: (n, d) samples.
        frame: What part of the plane to show.
        colour: Of the points.

    Returns:
        A PNG data URI, 240 x 240 px.
    """
    figure = Figure(figsize=(2, 2), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=frame[:2], ylim=frame[2:], xticks=(), yticks=())
    axes.patch.set_alpha(0)
    for spine in axes.spines.values():
        spine.set(color="#8888", linewidth=1.5)
    size = float(np.clip(1500 / len(points), 0.8, 12))
    second = points[:, 1] if points.shape[1] > 1 else np.linspace(*frame[2:], len(points))
    axes.scatter(points[:, 0], second, s=size, c=colour, alpha=0.6, linewidths=0)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", transparent=True, metadata={"Software": None})
    return _uri(stream.getvalue())


def _bytes(images: NDArray[Any]) -> NDArray[np.uint8]:
    if images.dtype == np.uint8:
        return images
    return np.rint(np.clip(np.nan_to_num(images), 0, 1) * 255).astype(np.uint8)


def _uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
