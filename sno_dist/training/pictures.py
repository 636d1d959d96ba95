"""What TensorBoard shows of a run in progress: reconstructions, samples, the embedding map."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from sno_dist.diffusion.sampler import Sampler
from sno_dist.model.operator import ScoreNeuralOperator
from sno_dist.runtime.tracking import Tracker
from sno_dist.shards.manifest import Entry, Manifest, evenly
from sno_dist.shards.reader import Reader

__all__ = ["show_embeddings", "show_images"]

SHOWN = 8
CONTEXT = 32
PROJECTED = 5000
"""Distributions in the projector, which is of no use with more; rank 0 embeds them alone."""


def show_images(
    operator: ScoreNeuralOperator, manifest: Manifest, reader: Reader, tracker: Tracker, step: int
) -> None:
    """Write grids: real over reconstructed, and samples of seen and unseen distributions.

    Image data alone. Each row of a sample grid is one distribution, given by CONTEXT samples.
    """
    if manifest.domain != "image":
        return
    seen = manifest.split("seen")[:SHOWN]
    shown = np.arange(min(SHOWN, *(entry.count("model") for entry in seen)))
    real = torch.from_numpy(np.concatenate([reader.take(e, "model", shown) for e in seen]))
    if operator.autoencoder.trains:
        rebuilt = operator.decode(operator.encode(real)).cpu()
        rows = torch.stack(
            [real.unflatten(0, (len(seen), -1)), rebuilt.unflatten(0, (len(seen), -1))], 1
        )
        tracker.images("pictures/reconstruction", _grid(rows.flatten(0, 1)), step)
    for split in ("seen", "unseen"):
        entries = manifest.split(split)[:SHOWN]
        drawn = [_draw(operator, reader, entry) for entry in entries]
        if drawn and all(row is not None for row in drawn):
            tracker.images(f"pictures/{split}", _grid(torch.stack(drawn)), step)  # pyright: ignore


def show_embeddings(
    operator: ScoreNeuralOperator, manifest: Manifest, reader: Reader, tracker: Tracker
) -> None:
    """Fill the projector with embeddings, labelled by name and split: PROJECTED at most."""
    rows, labels = [], []
    for entry in evenly(manifest.entries, PROJECTED):
        u = _embed(operator, reader, entry, 256)
        if u is not None:
            rows.append(u.cpu())
            labels.append((entry.name, entry.split))
    tracker.embedding(torch.stack(rows), ("name", "split"), labels)


def _embed(operator: ScoreNeuralOperator, reader: Reader, entry: Entry, size: int) -> Tensor | None:
    if operator.embeds:
        index = np.arange(min(size, entry.count("model")))
        return operator.embed(torch.from_numpy(reader.take(entry, "model", index)))
    return operator.seen_embedding(entry.name) if entry.split == "seen" else None


def _draw(operator: ScoreNeuralOperator, reader: Reader, entry: Entry) -> Tensor | None:
    u = _embed(operator, reader, entry, CONTEXT)
    return None if u is None else operator.sample(u, SHOWN, sampler=Sampler(steps=12)).cpu()


def _grid(rows: Tensor) -> Tensor:
    """(R, N, C, H, W) uint8 to one (C, R H, N W) image in [0, 1], with a line between cells."""
    padded = torch.nn.functional.pad(rows, (0, 1, 0, 1), value=128)
    return padded.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2).float() / 255
