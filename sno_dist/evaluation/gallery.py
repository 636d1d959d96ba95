"""Cards of the report: samples of one distribution, side by side, to be looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from sno_dist.evaluation import pictures
from sno_dist.evaluation.canvas import COLOURS

__all__ = ["Gallery", "Panel", "card"]

Kind = Literal["context", "real", "operator", "baseline"]

INKS: Mapping[Kind, str] = {
    "context": "#8a8a8a",
    "real": COLOURS["seen"],
    "operator": COLOURS["unseen"],
    "baseline": "#cc79a7",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """Samples of one origin.

    Args:
        kind: What they are; points are drawn in its ink.
        title: A few words above them, such as "from K = 1".
        samples: (n, C, H, W) images or (n, d) vectors.
        note: A few words below them, such as "98 % named rightly".
    """

    kind: Kind
    title: str
    samples: NDArray[Any]
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gallery:
    """One distribution.

    Args:
        name: Its name.
        panels: From left to right, real samples among them.
        note: A few words beside the name.
    """

    name: str
    panels: Sequence[Panel]
    note: str = ""


def card(gallery: Gallery) -> dict[str, Any]:
    """What the template shows: every panel as a picture.

    Panels of images are as wide as their grids, so that a pixel is as large in each of them;
    points are drawn in one frame, around the real ones.
    """
    (real,) = (panel.samples for panel in gallery.panels if panel.kind == "real")
    images = real.ndim == 4
    frame = None if images else pictures.frame_of(real)
    return {
        "name": gallery.name,
        "note": gallery.note,
        "pixels": images,
        "panels": [
            {
                "title": panel.title,
                "note": panel.note,
                "image": _picture(panel, frame),
                "share": pictures.grid_columns(panel.samples) if images else 1,
            }
            for panel in gallery.panels
        ],
    }


def _picture(panel: Panel, frame: pictures.Frame | None) -> str:
    if frame is None:
        return pictures.image_grid(panel.samples)
    return pictures.scatter(panel.samples, frame, INKS[panel.kind])
