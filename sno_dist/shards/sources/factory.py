"""Which source a config means, and which files it reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sno_dist.config import schema
from sno_dist.shards.sources.digits import digits_source
from sno_dist.shards.sources.dirichlet import dirichlet_source
from sno_dist.shards.sources.folder import folder_files, folder_source
from sno_dist.shards.sources.gaussian_mixture import gaussian_mixture_source
from sno_dist.shards.sources.mnist_pairs import mnist_files, mnist_pairs_source
from sno_dist.shards.sources.planar import planar_source
from sno_dist.shards.sources.source import Source

__all__ = ["files_of", "make_source"]


def make_source(config: schema.Source, split: schema.Split) -> Source:
    """Make the source of a config section.

    A source knows the split from the start, because it may draw the contexts of an unseen
    distribution from raw material of their own; its `distributions()` always name their split.

    Args:
        config: The section `shards.source`.
        split: The section `shards.split`.

    Raises:
        ConfigError: If the settings contradict each other.
        DataError: If the data is missing, damaged or of the wrong form.
    """
    match config:
        case schema.Digits():
            return digits_source(config, split)
        case schema.MnistPairs():
            return mnist_pairs_source(config, split)
        case schema.GaussianMixture():
            return gaussian_mixture_source(config, split)
        case schema.Dirichlet():
            return dirichlet_source(config, split)
        case schema.Planar():
            return planar_source(config, split)
        case schema.Folder():
            return folder_source(config, split)


def files_of(config: schema.Source) -> Mapping[str, Path]:
    """The user's files that a source reads, by their names below its path.

    Args:
        config: The section `shards.source`.

    Returns:
        Nothing where the source reads no files of the user's, or they are not there.
    """
    match config:
        case schema.MnistPairs(path=str(path)):
            return mnist_files(Path(path).expanduser())
        case schema.Folder():
            return folder_files(config)
        case _:
            return {}
