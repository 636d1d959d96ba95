"""One generative model over many probability distributions, trained on any number of ranks.

    from sno_dist import ScoreNeuralOperator

Importing the package imports no torch: each public name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "ScoreNeuralOperator": "sno_dist.model.operator",
    "load_config": "sno_dist.config.load",
    "build_shards": "sno_dist.shards.build",
    "fit_embedding": "sno_dist.embedding.fit",
    "train": "sno_dist.training.train",
    "sample": "sno_dist.sampling.sample",
    "evaluate": "sno_dist.evaluation.evaluate",
}
__all__ = [*_HOME, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'sno_dist' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)
