"""Stage 2: fit an embedding that is fitted; leave an empty table for one that is learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from sno_dist.config.load import flatten
from sno_dist.config.schema import Config, Kme
from sno_dist.embedding.gram import gram_matrix
from sno_dist.embedding.kernels import median_bandwidth
from sno_dist.embedding.pca import fit_pca
from sno_dist.embedding.table import FITTED, KIND, EmbeddingTable, open_table, table_folder
from sno_dist.runtime import collectives
from sno_dist.runtime.accelerator import device, start
from sno_dist.runtime.artifact import reuse, write_json, writing
from sno_dist.runtime.progress import say
from sno_dist.shards.manifest import Manifest
from sno_dist.shards.reader import Reader

__all__ = ["fit_embedding"]


def fit_embedding(config: Config, manifest: Manifest) -> EmbeddingTable:
    """Fit the embedding of a config, or find it fitted.

    Raises:
        ArtifactError: If the run's folder holds one of another config.

    **Collective.**
    """
    start()
    folder = table_folder(config)
    inputs = {"shards": manifest.digest, **flatten(config.embedding, "embedding")}
    if reuse(folder, KIND, inputs):
        return open_table(config)
    with writing(folder, KIND, inputs) as target:
        report: dict[str, Any] = {"kind": config.embedding.kind}
        if isinstance(config.embedding, Kme):
            tensors, report = _fit_kme(config, config.embedding, manifest)
            if collectives.world().is_main:
                save_file(tensors, target / FITTED)
        if collectives.world().is_main:
            write_json(target / "report.json", report)
    return open_table(config)


def _fit_kme(
    config: Config, section: Kme, manifest: Manifest
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    reader = Reader(manifest, cache=config.shards.cache)
    seen = manifest.split("seen")
    size = min(section.samples, *(entry.count("model") for entry in seen))
    shift, scale = np.asarray(manifest.shift), np.asarray(manifest.scale)
    sets = [
        torch.from_numpy((reader.take(entry, "model", np.arange(size)) - shift) / scale).flatten(1)
        for entry in seen
    ]
    bandwidth = section.bandwidth or median_bandwidth(torch.cat([s[:20] for s in sets]))
    gram = gram_matrix([s.double().to(device()) for s in sets], bandwidth)
    noise = float((1 - gram.diagonal()).mean()) / size
    pca = fit_pca(gram, section.components, noise, section.scaling)
    say(
        f"KME: bandwidth {bandwidth:.4g}, {len(pca.eigenvalues)} components keep "
        f"{100 * pca.kept:.1f} % of the variance between {len(seen)} distributions"
    )
    tensors = {
        "anchors": torch.stack(sets).float(),
        "bandwidth": torch.tensor(bandwidth, dtype=torch.float64),
        "column_mean": pca.column_mean,
        "projection": pca.projection.contiguous(),
        "table": pca(gram).float(),
    }
    report = {
        "kind": "kme",
        "bandwidth": bandwidth,
        "samples": size,
        "components": len(pca.eigenvalues),
        "kept": pca.kept,
        "eigenvalues": pca.eigenvalues.tolist(),
        "noise": noise,
    }
    return tensors, report
