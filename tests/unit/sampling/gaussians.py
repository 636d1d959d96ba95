"""A population of Gaussians in the plane, and an operator over it that was never trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sno_dist import ScoreNeuralOperator
from sno_dist.config.load import load_config
from sno_dist.config.schema import Config
from sno_dist.shards.manifest import Manifest
from sno_dist.training.untrained import untrained_operator

__all__ = ["LAWS", "arrays_config", "gaussians_config", "untrained"]

LAWS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "a": ((-4.0, 0.0), (1.0, 0.5)),
    "b": ((-3.0, 1.0), (0.3, 0.3)),
    "c": ((4.0, 2.0), (0.5, 1.5)),
    "d": ((5.0, -1.0), (0.4, 0.2)),
}
"""Name -> mean and deviation of each entry."""


def gaussians_config(root: Path, *overrides: str) -> Config:
    """The config of a population of LAWS, 300 samples each, in folders below `root`."""
    source = np.random.default_rng(0)
    arrays = {name: source.normal(*law, (300, 2)) for name, law in LAWS.items()}
    return arrays_config(root, arrays, *overrides)


def arrays_config(root: Path, arrays: Mapping[str, NDArray[np.float64]], *overrides: str) -> Config:
    """The config of a population of given samples, (n, D) each, in folders below `root`."""
    folder = root / "arrays"
    folder.mkdir(exist_ok=True)
    for name, rows in arrays.items():
        np.save(folder / f"{name}.npy", rows)
    return load_config(
        None,
        [
            "name=gaussians",
            f"shards={{source: {{kind: folder, path: {folder}}}, path: {root}/shards}}",
            f"run={root}/run",
            "embedding={kind: prototype}",
            "model={autoencoder: {kind: identity}, likelihood: gaussian}",
            "model.network={kind: nomad, width: 32, depth: 2, fourier: 1.0}",
            "training={precision: fp32, warmup: 10}",
            "sampling={guidance: 1.0, contexts: [1, 10], samples: 20, per_context: 5, batch: 40}",
            "sampling.individual={steps: 20, batch: 32, learning_rate: 3.0e-3, group: 3}",
            "judge=null",
            *overrides,
        ],
    )


def untrained(config: Config, manifest: Manifest) -> ScoreNeuralOperator:
    """An operator of a config's form with its initial weights."""
    torch.manual_seed(0)
    return untrained_operator(config, manifest).eval()
