"""Charts of the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from sno_dist.evaluation.canvas import COLOURS, INK, STYLE, blank, canvas, svg
from sno_dist.evaluation.notation import in_order
from sno_dist.evaluation.training_log import LearningCurve

__all__ = [
    "accuracy_bars",
    "accuracy_by_k",
    "curves",
    "embedding_map",
    "learning_curve",
    "nearness",
    "score_errors",
    "spectrum",
]

LEARNED = {"seen": "seen", "unseen": "unseen", "unseen_one": "unseen, K = 1"}
"""What a probe names its curves, and how they are labelled."""

NAMED = 5
"""Distributions of lowest accuracy."""

POINTS = 400
"""Points of a curve at most: more cannot be seen and make the page heavy."""

MOST_NEIGHBOURS = 2000
"""Embeddings for which t-SNE takes seconds."""


def accuracy_by_k(summary: Mapping[str, Any]) -> str | None:
    """Accuracy against the size of the context set, with intervals; none without a classifier."""
    with mpl.rc_context(STYLE):
        figure, axes = canvas(5.6, 3.8)
        lowest = 1.0
        labels = _ks(summary)
        for shift, (split, colour) in zip((-0.04, 0.04), COLOURS.items(), strict=True):
            section = summary.get(split) or {}
            by_k = {k: v for k, v in section.get("accuracy_by_k", {}).items() if v is not None}
            if not by_k:
                continue
            bounds = np.array([section["accuracy_by_k_interval"][k] for k in by_k])
            places = np.array([labels.index(k) for k in by_k]) + shift
            values = np.array(list(by_k.values()))
            spread = np.stack([values - bounds[:, 0], bounds[:, 1] - values]).clip(min=0)
            style = {"marker": "o", "markersize": 5, "linewidth": 1.6, "capsize": 3}
            axes.errorbar(places, 100 * values, 100 * spread, color=colour, label=split, **style)
            lowest = min(lowest, float(bounds.min()))
        if not labels:
            return None
        ceiling = summary.get("classifier_ceiling")
        if ceiling is not None:
            axes.axhline(100 * ceiling, color=INK, linestyle=":", linewidth=1.2, label="real")
        axes.set_xticks(range(len(labels)), labels)
        axes.set(xlabel="context samples K", ylabel="accuracy, %", xlim=(-0.3, len(labels) - 0.7))
        axes.set_ylim(max(0.0, 100 * lowest - 5), 101)
        axes.legend(loc="lower right", ncols=3)
        return svg(figure, "Accuracy by number of context samples")


def _ks(summary: Mapping[str, Any]) -> list[str]:
    """Every K that has an accuracy, by size, with all samples last."""
    found = {
        k
        for split in COLOURS
        for k, value in (summary.get(split) or {}).get("accuracy_by_k", {}).items()
        if value is not None
    }
    return in_order(found)


def accuracy_bars(accuracies: Mapping[str, Mapping[str, float]]) -> str | None:
    """Every distribution's accuracy, lowest first, the worst of each split named.

    Args:
        accuracies: Split -> distribution -> accuracy in [0, 1].
    """
    splits = {split: values for split, values in accuracies.items() if values}
    if not splits:
        return None
    with mpl.rc_context(STYLE):
        figure = blank(5.6, 1.9 * len(splits))
        for index, (split, values) in enumerate(splits.items(), start=1):
            axes = figure.add_subplot(len(splits), 1, index)
            ordered = sorted(values.items(), key=lambda item: (item[1], item[0]))
            heights = 100 * np.array([accuracy for _, accuracy in ordered])
            axes.bar(range(len(heights)), heights, width=0.85, color=COLOURS.get(split, INK))
            named = ", ".join(f"{name} {100 * value:.0f}" for name, value in ordered[:NAMED])
            axes.set_title(f"{split}: lowest {named}", loc="left", parse_math=False)
            axes.set(xticks=(), ylabel="accuracy, %", xlim=(-0.7, len(heights) - 0.3))
            axes.set_ylim(0, 101)  # bars are read by their length, so from zero
            axes.grid(visible=False, axis="x")
        return svg(figure, "Accuracy of every distribution")


def embedding_map(
    points: NDArray[Any],
    names: Sequence[str],
    splits: Sequence[str],
    *,
    neighbours: bool = False,
) -> str | None:
    """The embeddings u in a plane: that of their two largest principal components, or t-SNE's.

    Args:
        points: (P, U), P >= 3.
        names: P distributions.
        splits: "seen" or "unseen" of each.
        neighbours: t-SNE, which keeps who is near to whom and no distance beyond; None where
            there are too few or too many for it, or they lie on a line or in one place.
    """
    if len(points) < 3 or (neighbours and not 10 <= len(points) <= MOST_NEIGHBOURS):
        return None
    rows = np.asarray(points, np.float64).reshape(len(points), -1)
    if neighbours and (np.ptp(rows, axis=0) > 0).sum() < 2:
        return None
    plane, labels = nearness(rows) if neighbours else _principal(rows)
    short = len(rows) <= 150 and max(map(len, names)) <= 5
    with mpl.rc_context(STYLE):
        figure, axes = canvas(5.6, 3.8)
        for split, colour in COLOURS.items():
            own = [i for i, value in enumerate(splits) if value == split]
            size, alpha = (0, 0) if short else (14, 0.8)
            axes.scatter(*plane[own].T, s=size, c=colour, alpha=alpha, linewidths=0)
            axes.scatter([], [], s=18, c=colour, label=f"{split} ({len(own)})")
            for i in own if short else ():
                place = {"ha": "center", "va": "center", "fontsize": 8}
                axes.text(
                    plane[i, 0], plane[i, 1], names[i], color=colour, parse_math=False, **place
                )
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.set(xticklabels=(), yticklabels=())
        axes.margins(0.06)
        figure.legend(loc="outside upper right", ncols=2)
        title = "Neighbours among the embeddings" if neighbours else "Map of the embeddings"
        return svg(figure, title)


def _principal(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[str, str]]:
    """Two principal components of (P, U), (P, 2), and how much of the variance each holds."""
    rows = rows - rows.mean(axis=0)
    left, values, _ = np.linalg.svd(rows, full_matrices=False)
    plane = np.zeros((len(rows), 2))
    plane[:, : min(2, len(values))] = (left * values)[:, :2]
    share = 100 * values**2 / max(float((values**2).sum()), 1e-300)
    second = share[min(1, len(share) - 1)]
    return plane, (
        f"first component ({share[0]:.0f} % of the variance)",
        f"second ({second:.0f} %)",
    )


def nearness(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[str, str]]:
    """t-SNE of (P, U), (P, 2)."""
    from sklearn.manifold import TSNE

    perplexity = min(30.0, (len(rows) - 1) / 3)
    found = TSNE(perplexity=perplexity, init="pca", random_state=0).fit_transform(rows)
    return np.asarray(found, np.float64), (f"t-SNE, perplexity {perplexity:.0f}", "")


def curves(series: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> str | None:
    """One panel per scalar, against the training step.

    Args:
        series: Name -> (steps, values). Values that are not finite are left out.
    """
    kept = {name: pair for name, pair in series.items() if len(pair[0]) > 1}
    if not kept:
        return None
    columns = min(2, len(kept))
    rows = -(-len(kept) // columns)
    with mpl.rc_context(STYLE):
        figure = blank(5.6, 1.9 * rows)
        for index, (name, (steps, values)) in enumerate(kept.items(), start=1):
            _curve(figure.add_subplot(rows, columns, index), name, steps, values)
        return svg(figure, "Training curves")


def learning_curve(learning: LearningCurve, beside: Mapping[str, LearningCurve]) -> str:
    """Accuracy of a few generated samples against updates, and against the time that they took.

    Args:
        learning: The run's.
        beside: Those of other runs, by name, dotted.
    """
    with mpl.rc_context(STYLE):
        figure = blank(5.6, 3.0)
        for place, title in enumerate(("updates", "minutes"), start=1):
            axes = figure.add_subplot(1, 2, place)
            _accuracies(axes, title, learning, {"seen": "-", "unseen": "-", "unseen_one": "--"})
            for name, other in beside.items():
                _accuracies(axes, title, other, {"seen": ":", "unseen": ":"}, f", {name}")
            axes.set(xlabel=title, ylim=(0, 101))
            axes.locator_params(axis="x", nbins=4)
            if place == 1:
                axes.set_ylabel("accuracy, %")
                axes.legend(loc="lower right")
        return svg(figure, "Accuracy while training")


def _accuracies(
    axes: Axes, unit: str, learning: LearningCurve, dashes: Mapping[str, str], ending: str = ""
) -> None:
    x = learning.steps if unit == "updates" else learning.minutes
    for name, dash in dashes.items():
        if name in learning.accuracies:
            share = 100 * np.asarray(learning.accuracies[name])
            label = LEARNED[name] + ending
            axes.plot(x, share, color=COLOURS[name.partition("_")[0]], linestyle=dash, label=label)


def score_errors(error: Mapping[str, Any]) -> str:
    """The relative error of the score against the noise level, both in decades.

    Args:
        error: "levels" in cells, and "seen" and "unseen" at each of them or None.
    """
    with mpl.rc_context(STYLE):
        figure, axes = canvas(5.6, 3.8)
        for split, colour in COLOURS.items():
            if error[split] is not None:
                style = {"marker": "o", "markersize": 5, "linewidth": 1.6}
                axes.plot(error["levels"], error[split], color=colour, label=split, **style)
        axes.set(xscale="log", yscale="log")
        square = "\N{SUPERSCRIPT TWO}"
        axes.set_xlabel(
            "noise level \N{GREEK SMALL LETTER SIGMA} / \N{GREEK SMALL LETTER ALPHA}, cells"
        )
        axes.set_ylabel(f"E|s \N{MINUS SIGN} s*|{square} / E|s*|{square}", parse_math=False)
        _plain_decades(axes.xaxis)
        _plain_decades(axes.yaxis)
        axes.set_xticks(error["levels"])
        axes.legend()
        return svg(figure, "Error of the score by noise level")


def spectrum(eigenvalues: Sequence[float], components: int, noise: float) -> str:
    """The variance of each principal component of the embeddings, and the noise in it.

    Args:
        eigenvalues: Variance per component, decreasing.
        components: How many were kept.
        noise: Sampling noise of all components together; that of component k is noise / k.
    """
    shown = np.asarray(eigenvalues, np.float64)[: min(POINTS, max(60, 3 * components))]
    number = np.arange(1, len(shown) + 1)
    kept = number <= components
    with mpl.rc_context(STYLE):
        figure, axes = canvas(5.6, 3.8)
        for own, colour, name in (
            (kept, COLOURS["seen"], f"kept ({components})"),
            (~kept, COLOURS["unseen"], "dropped"),
        ):
            if own.any():
                axes.scatter(number[own], shown[own], s=10, c=colour, linewidths=0, label=name)
        if noise > 0:
            style = {"color": INK, "linestyle": ":", "linewidth": 1.2}
            axes.plot(number, noise / number, label="sampling noise", **style)
        axes.set_yscale("log")
        axes.set(xlabel=f"component, of {len(eigenvalues)}", ylabel="variance")
        figure.legend(loc="outside upper right", ncols=3)
        return svg(figure, "Spectrum of the embedding")


def _curve(axes: Axes, name: str, steps: Sequence[float], values: Sequence[float]) -> None:
    x, y = np.asarray(steps, np.float64), np.asarray(values, np.float64)
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    thin = np.unique(np.linspace(0, max(len(x) - 1, 0), min(POINTS, len(x))).astype(int))
    axes.plot(x[thin], y[thin], color=COLOURS["seen"], linewidth=1.2)
    axes.set_title(name, loc="left", parse_math=False)
    axes.locator_params(axis="x", nbins=4)
    if len(y) and y.min() > 0 and y.max() > 10 * y.min():
        axes.set_yscale("log")
        _plain_decades(axes.yaxis)


def _plain_decades(axis: Axis) -> None:
    # 1, 2, 5, 10 and no powers: the default labels of a short range run into each other
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=6))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
