"""Pairs of MNIST digits side by side, 28 x 56, resized to 32 x 32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sno_dist.config.schema import MnistPairs, Split
from sno_dist.errors import DataError
from sno_dist.shards.sources.fetch import cache_folder, fetch
from sno_dist.shards.sources.idx import read_idx
from sno_dist.shards.sources.pairs import NAMES, PairSource, Pool, split_glyphs
from sno_dist.shards.sources.split import assign

__all__ = ["MD5", "MIRRORS", "TEST_SHARES", "TRAIN_SHARES", "mnist_files", "mnist_pairs_source"]

MIRRORS: tuple[str, ...] = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)

MD5: dict[str, str] = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
"""Of the uncompressed files."""

TRAIN_SHARES: dict[Pool, float] = {"seen": 0.5, "judge": 0.5}
TEST_SHARES: dict[Pool, float] = {"unseen": 0.5, "reference": 0.5}
"""What is compared with comes from writers that MNIST keeps apart from its training digits."""


def mnist_pairs_source(config: MnistPairs, split: Split) -> PairSource:
    """Make the source of 32 x 32 pairs.

    Args:
        config: The files' folder, or none to fetch them, and samples per distribution.
        split: Which of the 100 distributions are unseen.

    Raises:
        DataError: If the files are missing, damaged, or not 28 x 28 digits with labels 0..9.
    """
    if config.path is None:
        folder = cache_folder() / "mnist"
        for name, md5 in MD5.items():
            fetch(name, md5, MIRRORS, folder)
    else:
        folder = Path(config.path).expanduser()
    return PairSource(
        shape=(1, 32, 32),
        glyphs={
            **split_glyphs(*_digits(folder, "train"), TRAIN_SHARES, "mnist-train"),
            **split_glyphs(*_digits(folder, "t10k"), TEST_SHARES, "mnist-test"),
        },
        counts={"model": config.model, "judge": config.judge, "reference": config.reference},
        splits=assign(NAMES, split),
    )


def mnist_files(folder: Path) -> dict[str, Path]:
    """Those of the four files that are in a folder, as they are read, by their names."""
    found = (_there(folder, name) for name in MD5)
    return {path.name: path for path in found if path is not None}


def _digits(folder: Path, half: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images = read_idx(_find(folder, f"{half}-images-idx3-ubyte"), 3)
    labels = read_idx(_find(folder, f"{half}-labels-idx1-ubyte"), 1)
    if images.shape[1:] != (28, 28) or len(images) != len(labels) or labels.max(initial=0) > 9:
        raise DataError(
            "the IDX files are not MNIST digits",
            where=f"{folder}/{half}-*",
            got=f"images {images.shape}, labels {labels.shape} up to {labels.max(initial=0)}",
            expected="(n, 28, 28) images and n labels of 0..9",
            fix="set shards.source.path to the folder of MNIST's four files, or leave it out",
        )
    return images, labels


def _there(folder: Path, name: str) -> Path | None:
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)


def _find(folder: Path, name: str) -> Path:
    if (path := _there(folder, name)) is not None:
        return path
    raise DataError(
        "a file of MNIST is missing",
        where=folder,
        expected=f"{name} or {name}.gz",
        fix="set shards.source.path to the folder of the four files, or leave it out to fetch",
    )
