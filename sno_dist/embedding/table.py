"""The embedding stage's artifact: the tensors that a fitted embedding is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from sno_dist.config.load import flatten, run_folder
from sno_dist.config.schema import Config
from sno_dist.runtime.artifact import check_inputs, open_artifact
from sno_dist.shards.manifest import Manifest

__all__ = [
    "FITTED",
    "KIND",
    "SUMS",
    "EmbeddingTable",
    "open_table",
    "table_folder",
    "table_inputs",
]

KIND = "embedding"
FITTED = "fitted.safetensors"
SUMS = "sums.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingTable:
    """What an embedding was fitted to.

    Args:
        digest: Of the artifact, for those downstream to pin.
        tensors: By name, as the embedder takes them; empty for an embedding that is learned.
    """

    digest: str
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


def table_folder(config: Config) -> Path:
    """Where the artifact of a config lies."""
    return run_folder(config) / "embedding"


def table_inputs(config: Config, manifest: Manifest) -> dict[str, Any]:
    """What a table is made from."""
    return {"shards": manifest.digest, **flatten(config.embedding, "embedding")}


def open_table(config: Config, manifest: Manifest) -> EmbeddingTable:
    """The table of a config's run.

    Raises:
        ArtifactError: If the stage has not run, ran with other settings or shards, or what it left
            is damaged.
    """
    artifact = open_artifact(table_folder(config), KIND)
    check_inputs(artifact, table_inputs(config, manifest))
    fitted = artifact.path / FITTED
    return EmbeddingTable(
        digest=artifact.digest, tensors=load_file(fitted) if fitted.is_file() else {}
    )
