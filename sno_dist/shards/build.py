"""Stage 1: from a source to shards and their manifest, built by all ranks together."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sno_dist.config.load import flatten, shards_folder
from sno_dist.config.schema import Config, Shards
from sno_dist.diffusion.maps.factory import transform_of
from sno_dist.diffusion.maps.transform import Identity, Transform
from sno_dist.errors import ConfigError, DataError
from sno_dist.runtime import collectives
from sno_dist.runtime.accelerator import start
from sno_dist.runtime.artifact import is_complete, open_artifact, reuse, write_json
from sno_dist.runtime.progress import say
from sno_dist.runtime.share import share_of
from sno_dist.runtime.writing import attempted, writing
from sno_dist.shards.manifest import MANIFEST, Entry, Manifest, open_manifest
from sno_dist.shards.originals import CONTENTS, originals
from sno_dist.shards.sources.factory import make_source
from sno_dist.shards.sources.source import Distribution, Role, Source
from sno_dist.shards.tar import Shard, write_shard

__all__ = ["build_shards"]

RECORDS = ".records"
PHASE = "building shards"
CONSTANT = 1e-14
"""Share of an entry's mean below which its deviation is rounding."""


def build_shards(config: Config) -> Manifest:
    """Build the shards of a config, or find them built.

    Distributions are dealt to ranks. Each leaves a record when its shards are whole, so that an
    interrupted build goes on where it stopped. Files of a user's that changed count as another
    config.

    Raises:
        DataError: If the source's data are missing or malformed.
        ArtifactError: If the folder holds shards made from another config or other files, or can't
            be written.

    **Collective.**
    """
    start()
    root = shards_folder(config)
    if "://" in root:
        return open_manifest(config)
    inputs = flatten(config.shards.source, "shards.source")
    inputs |= flatten(config.shards.split, "shards.split")
    inputs |= {"shards.block": config.shards.block, "shards.shard": config.shards.shard}
    if config.model.transform.kind != "none":
        inputs |= flatten(config.model.transform, "model.transform")
    built = collectives.from_main(lambda: _built(Path(root)), "looking for shards")
    inputs |= originals(config.shards.source, built)
    if reuse(Path(root), "shards", inputs):
        return open_manifest(config)
    source = make_source(config.shards.source, config.shards.split)
    transform = transform_of(config.model.transform, tuple(source.shape))
    with writing(Path(root), "shards", inputs, resume=True) as folder:
        records = _build_share(source, folder, config.shards, transform)
        audit = source.audit()
        if collectives.world().is_main:
            manifest = _assemble(root, config, source, records, audit)
            write_json(folder / MANIFEST, manifest.to_json())
            if shared := audit.get("shared_total"):
                say(f"{shared} distinct samples are in two roles: what is held out is partly known")
    return open_manifest(config)


def _built(root: Path) -> Mapping[str, Any] | None:
    """The inputs of the shards that are there, or of an attempt that tells of its files."""
    if is_complete(root):
        return open_artifact(root, "shards", verify=False).inputs
    begun = attempted(root) or {}
    return begun if CONTENTS in begun else None


def _build_share(
    source: Source, folder: Path, shards: Shards, transform: Transform
) -> Mapping[str, dict[str, Any]]:
    distributions = source.distributions()
    if not distributions:
        raise DataError("the source holds no distribution", where="shards.source")
    (folder / RECORDS).mkdir(exist_ok=True)
    for distribution in share_of(distributions, PHASE):
        record = folder / RECORDS / f"{distribution.name}.json"
        if not record.is_file():
            write_json(record, _build_one(source, distribution, folder, shards, transform))
    if not collectives.world().is_main:
        return {}
    return {
        d.name: json.loads((folder / RECORDS / f"{d.name}.json").read_text()) for d in distributions
    }


def _build_one(
    source: Source,
    distribution: Distribution,
    folder: Path,
    shards: Shards,
    transform: Transform,
) -> dict[str, Any]:
    name, split = distribution.name, distribution.split
    assert split is not None
    roles: dict[Role, list[Shard]] = {}
    moments: dict[str, Any] = {}
    for role in source.roles:
        samples = source.draw(name, role)
        _check(samples, source, name, role)
        transform.check(_floats(samples), f"distribution {name}, role {role}")
        roles[role] = [
            write_shard(
                folder,
                f"{split}/{name}/{role}-{index:05d}.tar",
                samples[first : first + shards.shard],
                shards.block,
            )
            for index, first in enumerate(range(0, len(samples), shards.shard))
        ]
        if role == "model" and split == "seen" and not _is_plain_image(source, transform):
            wide = transform.inverse(_floats(samples).double()).numpy()
            wide = wide if source.domain == "vector" else wide.reshape(-1, 1)
            # counted from the first row, a constant has no deviation, not even that of its sum
            steps = wide - wide[0]
            moments = {
                "count": len(wide),
                "mean": (wide[0] + steps.mean(0)).tolist(),
                "square": np.square(steps - steps.mean(0)).sum(0).tolist(),
            }
    entry = Entry(name=name, split=split, roles=roles)
    return {"entry": entry.to_json(), "moments": moments}


def _floats(samples: NDArray[np.generic]) -> torch.Tensor:
    """Samples in the type that an operator computes their coordinates in."""
    return torch.from_numpy(samples.astype(np.float32))


def _is_plain_image(source: Source, transform: Transform) -> bool:
    """Bytes of images are divided by 255, whatever their moments."""
    return source.domain == "image" and isinstance(transform, Identity)


def _check(samples: NDArray[np.generic], source: Source, name: str, role: Role) -> None:
    where = f"distribution {name}, role {role}"
    least = 2 if role == "model" else 1
    if len(samples) < least:
        raise DataError(
            "a distribution has too few samples",
            where=where,
            got=len(samples),
            expected=f"at least {least}",
            fix="drop the distribution or give it more samples",
        )
    if samples.shape[1:] != tuple(source.shape):
        raise DataError(
            "samples of the wrong shape",
            where=where,
            got=samples.shape[1:],
            expected=tuple(source.shape),
        )
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        row = int(np.argmax(~np.isfinite(samples).reshape(len(samples), -1).all(1)))
        raise DataError(
            "a sample is not finite",
            where=where,
            got=f"NaN or infinity in sample {row}",
            fix="drop or mend the sample",
        )


def _assemble(
    root: str,
    config: Config,
    source: Source,
    records: Mapping[str, dict[str, Any]],
    audit: Mapping[str, Any],
) -> Manifest:
    entries = [Entry.from_json(record["entry"]) for record in records.values()]
    if not any(entry.split == "seen" for entry in entries):
        raise ConfigError("no distribution is left to train on", where="shards.split.unseen")
    shift, scale = (0.0,), (255.0,)
    if moments := [r["moments"] for r in records.values() if r["moments"]]:
        shift, scale = _moments(moments)
    return Manifest(
        root=root,
        population=config.name,
        domain=source.domain,
        shape=tuple(source.shape),
        dtype="uint8" if source.domain == "image" else "float32",
        shift=shift,
        scale=scale,
        entries=entries,
        audit=audit,
        transform=config.model.transform,
    )


def _moments(parts: Sequence[Mapping[str, Any]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation over the seen training samples; a constant entry is left unscaled."""
    counts = np.array([[part["count"]] for part in parts])
    means = np.array([part["mean"] for part in parts])
    apart = means - means[0]
    mean = (counts * apart).sum(0) / counts.sum()
    squares = np.sum([part["square"] for part in parts], 0)
    squares = squares + (counts * np.square(apart - mean)).sum(0)
    deviation = np.sqrt(squares / counts.sum())
    mean = means[0] + mean
    varies = deviation > CONSTANT * np.abs(mean)
    return tuple(mean.tolist()), tuple(np.where(varies, deviation, 1.0).tolist())
