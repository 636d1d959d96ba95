"""What every chart is drawn on: inline SVG whose ink follows the page's light or dark colours."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

__all__ = ["COLOURS", "INK", "STYLE", "blank", "canvas", "svg"]

COLOURS: Mapping[str, str] = {"seen": "#3d8fd1", "unseen": "#e0762c"}
"""Told apart by every kind of colour vision, and legible on white and on black."""

INK, LINE = "#010203", "#040506"
"""Stand-ins that become `currentColor` and `var(--line)` in the SVG."""

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "sno",
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}


def blank(width: float, height: float) -> Figure:
    """A figure without axes, inches."""
    # Built without pyplot: it keeps no global state and needs no display.
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of one set of axes, inches."""
    figure = blank(width, height)
    return figure, figure.add_subplot()


def svg(figure: Figure, title: str) -> str:
    """The figure as an SVG element that fits its place; the title is for those who cannot see."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'<svg[^>]*viewBox="([^"]+)"[^>]*>', _opening(title), text, count=1)
    return text.replace(INK, "currentColor").replace(LINE, "var(--line)")


def _opening(title: str) -> str:
    return rf'<svg viewBox="\1" role="img" aria-label="{title}" xmlns="http://www.w3.org/2000/svg">'
