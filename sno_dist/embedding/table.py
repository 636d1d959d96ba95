"""The embedding stage's artifact: the tensors that a fitted embedding is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from sno_dist.config.load import run_folder
from sno_dist.config.schema import Config
from sno_dist.runtime.artifact import open_artifact

__all__ = ["FITTED", "KIND", "SUMS", "EmbeddingTable", "open_table", "table_folder"]

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


def open_table(config: Config) -> EmbeddingTable:
    """The table of a config's run.

    Raises:
        ArtifactError: If the stage has not run, or what it left is damaged.
    """
    artifact = open_artifact(table_folder(config), KIND)
    fitted = artifact.path / FITTED
    return EmbeddingTable(
        digest=artifact.digest, tensors=load_file(fitted) if fitted.is_file() else {}
    )
