"""Stage 2: fit an embedding that is fitted; leave an empty table for one that is learned."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from sno_dist.config.load import run_folder
from sno_dist.config.schema import Config, Kme
from sno_dist.embedding.fit_kme import fit_kme
from sno_dist.embedding.sets import SampleSets
from sno_dist.embedding.table import (
    FITTED,
    KIND,
    SUMS,
    EmbeddingTable,
    open_table,
    table_folder,
    table_inputs,
)
from sno_dist.runtime import collectives
from sno_dist.runtime.accelerator import device, start
from sno_dist.runtime.artifact import reuse, write_json
from sno_dist.runtime.tracking import Tracker
from sno_dist.runtime.writing import writing
from sno_dist.shards.manifest import Manifest
from sno_dist.shards.reader import reader_of

__all__ = ["fit_embedding"]

TILES = ".gram"
SHOWN = 500
"""Components whose variance is written to TensorBoard."""


def fit_embedding(config: Config, manifest: Manifest) -> EmbeddingTable:
    """Fit the embedding of a config, or find it fitted.

    Raises:
        ArtifactError: If the run's folder holds one of another config.

    **Collective.**
    """
    start()
    folder = table_folder(config)
    inputs = table_inputs(config, manifest)
    if reuse(folder, KIND, inputs):
        return open_table(config, manifest)
    with writing(folder, KIND, inputs, resume=True) as target:
        report: Mapping[str, Any] = {"kind": config.embedding.kind}
        if isinstance(config.embedding, Kme):
            report = _fit_kme(config, config.embedding, manifest, target)
        if collectives.world().is_main:
            write_json(target / "report.json", report)
    return open_table(config, manifest)


def _fit_kme(config: Config, section: Kme, manifest: Manifest, target: Path) -> Mapping[str, Any]:
    reader = reader_of(config, manifest)
    sets = SampleSets(reader, manifest.split("seen"), section.samples, device())
    fitted = fit_kme(section, sets, target / TILES)
    if collectives.world().is_main:
        save_file(dict(fitted.tensors), target / FITTED)
        if fitted.sums is not None:
            save_file({"total": fitted.sums.total, "count": fitted.sums.count}, target / SUMS)
    _record(config, fitted.report)
    return fitted.report


def _record(config: Config, report: Mapping[str, Any]) -> None:
    """The variance of the components, as a curve over them."""
    tracker = Tracker(run_folder(config))
    tracker.curve("spectrum", report["eigenvalues"][:SHOWN])
    tracker.close()
