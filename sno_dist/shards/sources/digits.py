"""Pairs of the handwritten digits that ship inside scikit-learn: nothing to fetch."""

from __future__ import annotations

import numpy as np

from sno_dist.config.schema import Digits, Split
from sno_dist.shards.sources.pairs import NAMES, PairSource, Pool, split_glyphs
from sno_dist.shards.sources.split import assign

__all__ = ["SHARES", "digits_source"]

SHARES: dict[Pool, float] = {"seen": 0.5, "unseen": 0.125, "judge": 0.25, "reference": 0.125}
"""Of the 174 to 183 glyphs of each digit: about 89, 22, 45 and 22."""


def digits_source(config: Digits, split: Split) -> PairSource:
    """Make the source of 8 x 16 pairs.

    Args:
        config: Samples per distribution.
        split: Which of the 100 distributions are unseen.
    """
    from sklearn.datasets import load_digits

    images, labels = map(np.asarray, load_digits(return_X_y=True))
    # Raw intensities are 0..16; 255 / 16 keeps the 17 levels distinct and spans the byte.
    glyphs = np.rint(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return PairSource(
        shape=(1, 8, 16),
        glyphs=split_glyphs(glyphs, labels, SHARES, "digits"),
        counts={"model": config.model, "judge": config.judge, "reference": config.reference},
        splits=assign(NAMES, split),
    )
