"""The report: one HTML file that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from sno_dist.evaluation import figures, pictures
from sno_dist.evaluation.summary import SPLITS
from sno_dist.evaluation.terminal import figure, percent, ranged

__all__ = ["Embeddings", "Gallery", "ReportPage", "render"]

TEMPLATE = "report.html.j2"
OPEN_GALLERIES = 12
"""Galleries that are shown at once; the others are a click away, so that the page stays short."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gallery:
    """Some samples of one distribution, to be looked at.

    Args:
        name: The distribution.
        real: (n, C, H, W) images or (n, d) vectors, d >= 2.
        generated: The same, of generated samples.
        context: The context samples they were drawn for; none: not shown.
        note: A few words, such as "98 % named rightly".
    """

    name: str
    real: NDArray[Any]
    generated: NDArray[Any]
    context: NDArray[Any] | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Embeddings:
    """The embeddings of all distributions.

    Args:
        points: (P, U).
        names: P distributions.
        splits: "seen" or "unseen" of each.
    """

    points: NDArray[Any]
    names: Sequence[str]
    splits: Sequence[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportPage:
    """Everything that a report shows; what is left out is said to be missing.

    Args:
        title: The experiment.
        summary: What `summarise` returned, or the content of summary.json.
        galleries: Distributions to look at, unseen ones first of all.
        accuracies: Split -> distribution -> accuracy; empty without a classifier.
        embeddings: The map; none: not shown.
        curves: Name -> (steps, values) of training scalars.
        config: The run's configuration as YAML.
        provenance: What made this, by name: command, commit, versions, world.
    """

    title: str
    summary: Mapping[str, Any]
    galleries: Sequence[Gallery] = ()
    accuracies: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    embeddings: Embeddings | None = None
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)
    config: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)


ROWS = (
    ("Accuracy", "accuracy", True, "ceiling", "real samples", "named rightly by the classifier"),
    ("Frechet distance", "frechet", False, "frechet_floor", "real against real", "lower is better"),
    ("Diversity", "diversity", False, None, "", "spread over that of real samples; 1 is ideal"),
    (
        "Recall",
        "recall",
        True,
        "recall_ceiling",
        "real against real",
        "of the real variety",
    ),
    ("Precision", "precision", True, None, "", "of the samples, among the real ones"),
    ("MMD\N{SUPERSCRIPT TWO}", "mmd", False, "mmd_floor", "real against real", "lower is better"),
    ("Copying", "copying", True, "copying_chance", "by chance", "nearest sample is a context one"),
)
CHANCE = ("Copying by chance", "copying_chance", True)


def render(page: ReportPage) -> str:
    """The page as HTML, readable on a phone and a desktop, in the light and in the dark.

    Nothing is loaded from anywhere and no script runs, so it can be mailed or archived.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        files("sno_dist.evaluation").joinpath(TEMPLATE).read_text(encoding="utf-8")
    )
    return template.render(
        page=page,
        summary=page.summary,
        splits=[split for split in SPLITS if page.summary.get(split)],
        tiles=_tiles(page.summary),
        rows=_rows(page.summary),
        by_k=_by_k(page.summary),
        charts=_charts(page),
        galleries=[_gallery(gallery) for gallery in page.galleries],
        open_galleries=OPEN_GALLERIES,
        provenance={name: _plain(value) for name, value in page.provenance.items()},
        percent=percent,
    )


def _plain(value: Any) -> str:
    """A value of the provenance as a person would write it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(own)}" for name, own in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else str(value)


def _tiles(summary: Mapping[str, Any]) -> list[dict[str, str]]:
    """The few numbers that a reader wants first, of the unseen split where there is one."""
    split = "unseen" if summary.get("unseen") else "seen"
    section = summary.get(split) or {}
    accuracies = section.get("accuracy_by_k", {})
    tiles = [
        {
            "title": f"{split} accuracy, K = {k}",
            "value": percent(accuracies[k]),
            "note": f"real samples {percent(section['ceiling'])}",
        }
        for k in dict.fromkeys([section.get("k"), *list(accuracies)[:1]])
        if accuracies.get(k) is not None
    ]
    for title, key in (
        (f"{split} diversity", "diversity"),
        (f"{split} Frechet", "frechet"),
        (f"{split} MMD\N{SUPERSCRIPT TWO}", "mmd"),
    ):
        if section.get(key) is not None and len(tiles) < 4:
            floor = section.get(f"{key}_floor")
            note = "1 is ideal" if floor is None else f"floor {figure(floor)}"
            tiles.append({"title": title, "value": figure(section[key]), "note": note})
    return tiles


def _rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for title, key, share, bound, bound_title, meaning in ROWS:
        cells = []
        for split in SPLITS:
            section = summary.get(split)
            if not section:
                continue
            value, _, interval = ranged(section, key, share).partition(" [")
            interval = interval.rstrip("]").replace(", ", " to ")
            write = percent if share else figure
            known = bound is not None and section.get(bound) is not None
            limit = f"{bound_title} {write(section[bound])}" if known else ""
            cells.append({"value": value, "interval": interval, "bound": limit})
        rows.append({"title": title, "meaning": meaning, "cells": cells})
    return rows


def _by_k(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table per split: a column per K."""
    tables = []
    for split in SPLITS:
        section = summary.get(split)
        if not section or len(section["diversity_by_k"]) < 2:
            continue
        ks = list(section["diversity_by_k"])
        rows = []
        for title, key, share in (*(row[:3] for row in ROWS), CHANCE):
            values = section.get(f"{key}_by_k", {})
            write = percent if share else figure
            if any(values.get(k) is not None for k in ks):
                rows.append({"title": title, "cells": [write(values[k]) for k in ks]})
        tables.append({"split": split, "ks": ks, "rows": rows})
    return tables


def _charts(page: ReportPage) -> list[dict[str, Any]]:
    lone = page.embeddings
    no_judge = "no classifier, so no accuracy"
    drawn = (
        ("Accuracy by K", no_judge, figures.accuracy_by_k(page.summary)),
        ("Accuracy of every distribution", no_judge, figures.accuracy_bars(page.accuracies)),
        (
            "Map of the embeddings",
            "no embeddings were given",
            lone and figures.embedding_map(lone.points, lone.names, lone.splits),
        ),
        ("Training", "no curves were given", figures.curves(page.curves)),
    )
    # The SVG is this package's own: names in it have been escaped by matplotlib.
    return [
        {"title": title, "missing": missing, "svg": svg and Markup(svg)}
        for title, missing, svg in drawn
    ]


def _gallery(gallery: Gallery) -> dict[str, Any]:
    kinds = [("real", gallery.real), ("generated", gallery.generated)]
    if gallery.context is not None:
        kinds.insert(0, ("context", gallery.context))
    # Panels are as wide as their grids, so that a pixel is as large in each of them.
    if gallery.real.ndim == 4:
        panels = [
            (kind, pictures.image_grid(samples), pictures.grid_columns(samples))
            for kind, samples in kinds
        ]
    else:
        frame = pictures.frame_of(gallery.real)
        blue, orange = figures.COLOURS["seen"], figures.COLOURS["unseen"]
        inks = {"context": "#8a8a8a", "real": blue, "generated": orange}
        panels = [
            (kind, pictures.scatter(samples, frame, inks[kind]), 1) for kind, samples in kinds
        ]
    return {
        "name": gallery.name,
        "note": gallery.note,
        "pixels": gallery.real.ndim == 4,
        "panels": [{"kind": kind, "image": image, "share": share} for kind, image, share in panels],
    }
