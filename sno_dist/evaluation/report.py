"""The report: one HTML file that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from sno_dist.evaluation import figures, tables
from sno_dist.evaluation.comparison import Method, comparison
from sno_dist.evaluation.gallery import Gallery, card
from sno_dist.evaluation.notation import MISSING, percent, weights
from sno_dist.evaluation.summary import SPLITS
from sno_dist.evaluation.training_log import LearningCurve

__all__ = ["Embeddings", "ReportPage", "render"]

TEMPLATE = "report.html.j2"
OPEN_GALLERIES = 12
"""Galleries that are shown at once; the others are a click away, so that the page stays short."""

WIDE = 3
"""Panels beyond which cards are laid out two in a row."""


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
        learning: Accuracy while training went on; none: not shown.
        beside: That of other runs, by name.
        spectrum: "eigenvalues", "components" and "noise" of a kernel embedding; none: not shown.
        config: The run's configuration as YAML.
        provenance: What made this, by name: command, commit, versions, world.
    """

    title: str
    summary: Mapping[str, Any]
    galleries: Sequence[Gallery] = ()
    accuracies: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    embeddings: Embeddings | None = None
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)
    learning: LearningCurve | None = None
    beside: Mapping[str, LearningCurve] = field(default_factory=dict)
    spectrum: Mapping[str, Any] | None = None
    config: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)


def render(page: ReportPage) -> str:
    """The page as HTML, readable on a phone and a desktop, in the light and in the dark.

    Nothing is loaded from anywhere and no script runs, so it can be mailed or archived.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    methods = comparison(page.summary)
    template = environment.from_string(
        files("sno_dist.evaluation").joinpath(TEMPLATE).read_text(encoding="utf-8")
    )
    return template.render(
        page=page,
        summary=page.summary,
        splits=[split for split in SPLITS if page.summary.get(split)],
        tiles=tables.tiles(page.summary),
        rows=tables.rows(page.summary),
        by_k=tables.by_k(page.summary),
        by_bandwidth=tables.by_bandwidth(page.summary),
        comparison=methods,
        compared=_compared(methods),
        charts=_charts(page),
        galleries=[card(gallery) for gallery in page.galleries],
        open_galleries=OPEN_GALLERIES,
        wide=any(len(gallery.panels) > WIDE for gallery in page.galleries),
        provenance={name: _plain(value) for name, value in page.provenance.items()},
        heading=_heading,
        weights=weights,
        percent=percent,
    )


def _compared(methods: Sequence[Method]) -> list[str]:
    """Splits of which any method has a figure: a finetuned one has some that the operator lacks."""
    cells = [cell for method in methods for cell in method.cells.values()]
    return [split for split in SPLITS if any(cell[split] != MISSING for cell in cells)]


def _heading(title: str) -> str:
    return title[:1].upper() + title[1:].replace("^2", "\N{SUPERSCRIPT TWO}")


def _plain(value: Any) -> str:
    """A value of the provenance as a person would write it."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(own)}" for name, own in value.items())
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "unknown" if value is None else str(value)


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
    drawn += tuple((title, "", chart) for title, chart in _rare(page).items())
    # The SVG is this package's own: names in it have been escaped by matplotlib.
    return [
        {"title": title, "missing": missing, "svg": svg and Markup(svg)}
        for title, missing, svg in drawn
    ]


def _rare(page: ReportPage) -> dict[str, str]:
    """Charts that most runs have no figures for, and do not miss."""
    charts = {}
    if error := page.summary.get("score_error"):
        charts["Error of the score by noise level"] = figures.score_errors(error)
    if page.embeddings is not None:
        lone = page.embeddings
        near = figures.embedding_map(lone.points, lone.names, lone.splits, neighbours=True)
        charts |= {"Neighbours among the embeddings": near} if near else {}
    if page.learning:
        charts["Accuracy while training"] = figures.learning_curve(page.learning, page.beside)
    if fit := page.spectrum:
        charts["Spectrum of the embedding"] = figures.spectrum(
            fit["eigenvalues"], fit["components"], fit["noise"]
        )
    return charts
