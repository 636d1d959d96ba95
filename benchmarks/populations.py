"""Populations that no setting was ever chosen on, written as a user's own data would lie.

`digits8`: pairs of the digits that ship inside scikit-learn, as folders of images that are dealt by
hand, from disjoint pools of glyphs for the roles and for the unseen distributions of split 0.
`shapes`: pairs of outlines, each drawn anew at a random size, place, angle and stroke, as arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sno_dist.config.schema import Digits, Split
from sno_dist.shards.sources.digits import digits_source

__all__ = ["POPULATIONS", "write_population"]

COUNTS = {"model": 400, "judge": 200, "reference": 100}
SIDE, FINE = 32, 4
"""Pixels of an image's side, and in how many parts each is cut while drawing."""


def write_population(name: str, folder: Path) -> Path:
    """Write a population, unless it is there; its folder."""
    done = folder.with_suffix(".done")
    if not done.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        POPULATIONS[name](folder)
        done.touch()
    return folder


def _digits8(folder: Path) -> None:
    source = digits_source(Digits(**COUNTS), Split())
    for distribution in source.distributions():
        for role in source.roles:
            own = folder / distribution.name / role
            own.mkdir(parents=True, exist_ok=True)
            for index, image in enumerate(source.draw(distribution.name, role)):
                Image.fromarray(image[0]).save(own / f"{index:04d}.png")


def _shapes(folder: Path) -> None:
    count = sum(COUNTS.values())
    for left, left_outline in OUTLINES.items():
        for right, right_outline in OUTLINES.items():
            source = np.random.default_rng([*left.encode(), 0, *right.encode()])
            images = [_pair(left_outline, right_outline, source) for _ in range(count)]
            np.save(folder / f"{left}_{right}.npy", np.stack(images))


def _pair(
    left: NDArray[np.float64], right: NDArray[np.float64], source: np.random.Generator
) -> NDArray[np.uint8]:
    """(32, 32) of two outlines side by side."""
    size = SIDE * FINE
    page = Image.new("L", (size, size))
    for outline, centre in ((left, 0.25), (right, 0.75)):
        _draw(ImageDraw.Draw(page), outline, centre, size, source)
    return np.asarray(page.resize((SIDE, SIDE), Image.Resampling.BOX))


def _draw(
    pen: ImageDraw.ImageDraw,
    outline: NDArray[np.float64],
    centre: float,
    size: int,
    source: np.random.Generator,
) -> None:
    angle = source.uniform(-0.35, 0.35)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    stretch = source.uniform(0.13, 0.21, 2) * [1.0, 1.3]
    place = np.array([centre, 0.5]) + source.uniform([-0.03, -0.1], [0.03, 0.1])
    points = ((outline * stretch) @ turn.T + place) * size
    width = int(source.integers(FINE, 3 * FINE))
    ink = int(source.integers(150, 256))
    pen.line([tuple(point) for point in points], fill=ink, width=width, joint="curve")


def _polygon(corners: int, inner: float = 1.0, turn: float = -math.pi / 2) -> NDArray[np.float64]:
    """A closed regular polygon, or a star where every second corner lies nearer."""
    angles = turn + 2 * math.pi * np.arange(corners + 1) / corners
    radii = np.where(np.arange(corners + 1) % 2, inner, 1.0)
    return np.stack([np.cos(angles), np.sin(angles)], 1) * radii[:, None]


OUTLINES: Mapping[str, NDArray[np.float64]] = {
    "triangle": _polygon(3),
    "square": _polygon(4, turn=math.pi / 4),
    "ring": _polygon(32),
    "star": _polygon(10, inner=0.4),
    "bar": np.array([[0.0, -1], [0, 1]]),
    "zigzag": np.array([[-1.0, -1], [1, -1], [-1, 1], [1, 1]]),
    "corner": np.array([[-1.0, -1], [-1, 1], [1, 1]]),
    "hook": np.array([[-1.0, -1], [1, -1], [1, 1], [0, 1]]),
    "cross": np.array([[-1.0, 0], [1, 0], [0, 0], [0, -1], [0, 1]]),
    "arrow": np.array([[0.0, 1], [0, -1], [-0.8, -0.2], [0, -1], [0.8, -0.2]]),
}

POPULATIONS: Mapping[str, Callable[[Path], None]] = {"digits8": _digits8, "shapes": _shapes}
