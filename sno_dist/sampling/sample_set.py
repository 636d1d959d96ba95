"""The sampling stage's artifact: shards of samples, keyed by distribution, K and method."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from sno_dist.config.load import flatten, run_folder
from sno_dist.config.schema import Config
from sno_dist.runtime.artifact import check_inputs, open_artifact
from sno_dist.shards.manifest import Manifest
from sno_dist.shards.tar import Shard, map_shard
from sno_dist.training.checkpoint import is_trained, open_checkpoint

__all__ = [
    "EMBEDDINGS",
    "INDEX",
    "KIND",
    "SampleSet",
    "drawn_by",
    "open_samples",
    "samples_folder",
]

KIND = "samples"
INDEX = "index.json"
EMBEDDINGS = "embeddings.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleSet:
    """Generated samples on disk.

    Args:
        path: The artifact's folder.
        digest: Of its files.
        shards: "split/label/name" -> shard; the label tells K and a baseline's name, see
            `sampling.plan.label`.
        shape: One sample's shape.
        dtype: Its type.
        guidance: K, as `size_label` has it -> the weight that the operator's were drawn with.
        seconds: What drawing them took, the baselines' among them.
        calibration: K -> guidance weight -> seen diversity, where weights were chosen.
        embeddings: Distribution -> u from its whole context set, (U,) float32, with the statistic
            of a base at its end.
        entries: Those of u before a base's statistic, in which distributions are compared.
    """

    path: Path
    digest: str
    shards: Mapping[str, Shard]
    shape: tuple[int, ...]
    dtype: str
    guidance: Mapping[str, float]
    seconds: float
    calibration: Mapping[str, Mapping[str, float]]
    embeddings: Mapping[str, NDArray[np.float32]]
    entries: int

    def samples(self, key: str) -> NDArray[np.generic]:
        """The samples of one distribution, K and method: (n, *shape), ordered by sample index."""
        shard = self.shards[key]
        view = map_shard(self.path / shard.file, shard, self.shape, self.dtype, verify=False)
        index = np.arange(shard.count)
        return view[index // shard.block, index % shard.block]


def samples_folder(config: Config) -> Path:
    """Where the artifact of a config lies."""
    return run_folder(config) / "sampling"


def drawn_by(config: Config, manifest: Manifest) -> dict[str, Any]:
    """What tells, beside the checkpoint, which samples are drawn for which context sets."""
    sampling = flatten(config.sampling, "sampling")
    return {"seed": config.seed, "shards": manifest.digest, **sampling}


def open_samples(config: Config, manifest: Manifest) -> SampleSet:
    """The samples of a config's run, their hashes checked.

    Raises:
        ArtifactError: If the stage has not run, ran with other settings, shards or another
            checkpoint than the run's, where that is there, or what it left is damaged.
    """
    artifact = open_artifact(samples_folder(config), KIND)
    asked = drawn_by(config, manifest)
    if is_trained(config):
        asked["checkpoint"] = open_checkpoint(config, manifest).digest
    # what is none has no leaves below it, but may have had some when samples were drawn
    none = tuple(f"{key}." for key, value in asked.items() if value is None)
    rest = {key: value for key, value in artifact.inputs.items() if not key.startswith(none)}
    check_inputs(artifact, {**rest, **asked})
    index: dict[str, Any] = json.loads((artifact.path / INDEX).read_text())
    return SampleSet(
        path=artifact.path,
        digest=artifact.digest,
        shards={key: Shard(**value) for key, value in index["shards"].items()},
        shape=tuple(index["shape"]),
        dtype=index["dtype"],
        guidance=index["guidance"],
        seconds=index["seconds"],
        calibration=index["calibration"],
        embeddings=load_file(artifact.path / EMBEDDINGS),
        entries=index["entries"],
    )
