"""What a run draws of distributions it was never trained on, as one picture of images.

    python -m benchmarks.picture runs/double_digit --out benchmarks/results/double_digit.png

A row is a distribution: a context sample, samples drawn from it alone, samples drawn from the whole
context set, real samples that nothing was trained on. None is picked by eye: distributions are
spread evenly over the unseen ones, samples are the first of each.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from sno_dist.config.load import load_config
from sno_dist.config.schema import Config
from sno_dist.evaluation.conditions import Condition
from sno_dist.sampling.plan import context_of
from sno_dist.sampling.sample_set import open_samples
from sno_dist.shards.manifest import evenly, open_manifest
from sno_dist.shards.reader import reader_of

Panels = dict[str, NDArray[Any]]
"""Title -> (n, 1, H, W) bytes."""

GAP, BREAK, HEAD, SCALE = 1, 6, 12, 2


def panels(config: Config, rows: int, count: int) -> list[Panels]:
    """The rows of the picture.

    Args:
        config: A run's, complete, of grey images and with samples for K = 1.
        rows: Distributions.
        count: Samples in a panel; at most those of a context set.
    """
    manifest = open_manifest(config)
    reader, samples = reader_of(config, manifest), open_samples(config, manifest)
    return [
        {
            "given": reader.take(entry, "model", context_of(config.seed, entry, 1, 0)),
            "drawn from it alone": samples.samples(Condition(k=1).key(entry))[:count],
            "drawn from all": samples.samples(Condition().key(entry))[:count],
            "real": reader.take(entry, "reference", np.arange(count)),
        }
        for entry in evenly(manifest.split("unseen"), rows)
    ]


def picture(rows: list[Panels]) -> Image.Image:
    """The rows below each other, with the panels' titles above."""
    lines = [
        _side_by_side([_side_by_side([*own[:, 0]], GAP) for own in row.values()], BREAK)
        for row in rows
    ]
    sheet = _side_by_side([line.T for line in lines], GAP).T
    framed = Image.fromarray(np.pad(sheet, ((HEAD, 0), (0, 0)), constant_values=255))
    found = framed.resize((framed.width * SCALE, framed.height * SCALE), Image.Resampling.NEAREST)
    pen, left = ImageDraw.Draw(found), 0
    for title, own in rows[0].items():
        pen.text((left * SCALE, 0), title, fill=0, font_size=HEAD * SCALE * 0.7)
        left += len(own) * (own.shape[-1] + GAP) - GAP + BREAK
    return found


def _side_by_side(images: list[NDArray[Any]], gap: int) -> NDArray[Any]:
    white = np.full((len(images[0]), gap), 255, np.uint8)
    parts = [part for image in images for part in (white, image)]
    return np.concatenate(parts[1:], 1)


def main() -> None:
    """Draw it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a complete run's folder")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--count", type=int, default=7, help="samples in a panel")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    config = load_config(options.run / "config.yaml", [f"run={options.run}"])
    picture(panels(config, options.rows, options.count)).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
