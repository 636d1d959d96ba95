"""What a config will build, before it is there: the population's counts, the operator's shapes."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from sno_dist.cli import layout
from sno_dist.config import schema
from sno_dist.errors import ArtifactError, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from sno_dist.model.operator import ScoreNeuralOperator
    from sno_dist.shards.manifest import Manifest
    from sno_dist.shards.sources.source import Source

__all__ = ["operator_of", "population_of"]


def population_of(config: schema.Config) -> tuple[Manifest, str]:
    """A config's population, and where it was learnt: from its shards or, unbuilt, its source.

    An unbuilt one has no files, and nought and one for shift and scale.

    Raises:
        DataError: If the source's data is missing, or would have to be drawn to be counted.
        ArtifactError: If the shards are damaged.
    """
    from sno_dist.diffusion.maps.factory import transform_of
    from sno_dist.shards.manifest import Entry, Manifest, open_manifest
    from sno_dist.shards.tar import Shard

    root = layout.folders(config)["shards"]
    if layout.state(root) in ("complete", "remote"):
        return open_manifest(config), root
    source = _source(config.shards)

    def entry(name: str, split: str | None) -> Entry:
        size = _count(source, name)
        shard = Shard(
            file="", count=size, bytes=0, sha256="", block=size, header=0, offset=0, stride=0
        )
        return Entry(
            name=name, split="unseen" if split == "unseen" else "seen", roles={"model": [shard]}
        )

    free = transform_of(config.model.transform, tuple(source.shape)).free
    entries = free[-1] if source.domain == "vector" else 1
    manifest = Manifest(
        root=root,
        population=config.name,
        domain=source.domain,
        shape=tuple(source.shape),
        dtype="uint8" if source.domain == "image" else "float32",
        shift=(0.0,) * entries,
        scale=(1.0,) * entries,
        entries=[entry(d.name, d.split) for d in source.distributions()],
        transform=config.model.transform,
    )
    return manifest, f"{config.shards.source.kind}, not built yet"


def operator_of(
    config: schema.Config, manifest: Manifest
) -> tuple[ScoreNeuralOperator, str | None]:
    """A config's operator on the meta device, and what had to be assumed of its embedding.

    Raises:
        ConfigError: If its parts do not fit the data or each other.
    """
    import torch

    from sno_dist.training.untrained import untrained_operator

    fitted, assumed = _fitted(config, manifest)
    with torch.device("meta"):
        return untrained_operator(config, manifest, fitted), assumed


def _source(shards: schema.Shards) -> Source:
    from sno_dist.shards.sources.factory import make_source
    from sno_dist.shards.sources.pairs import NAMES, PairSource
    from sno_dist.shards.sources.split import assign

    section = shards.source
    if isinstance(section, schema.MnistPairs):
        # without its glyphs, which would be fetched
        return PairSource(
            shape=(1, 32, 32),
            glyphs={},
            counts={"model": section.model},
            splits=assign(NAMES, shards.split),
        )
    return make_source(section, shards.split)


def _count(source: Source, name: str) -> int:
    from sno_dist.shards.sources.dirichlet import DirichletSource
    from sno_dist.shards.sources.folder import FolderSource
    from sno_dist.shards.sources.gaussian_mixture import LatticeSource
    from sno_dist.shards.sources.pairs import PairSource
    from sno_dist.shards.sources.planar import PlanarSource

    match source:
        case PairSource() | LatticeSource() | DirichletSource() | PlanarSource():
            return source.counts["model"]
        case FolderSource():
            return len(source.rows[name]["model"])
        case _:
            raise DataError(
                "this source tells how many samples there are only by drawing them",
                where="shards.source",
                got=type(source).__name__,
                fix="run `sno-dist build-shards` with the same config first",
            )


def _fitted(config: schema.Config, manifest: Manifest) -> tuple[dict[str, Tensor], str | None]:
    """The embedding stage's tensors: those it left, or the shapes of those it will leave."""
    from sno_dist.embedding.table import open_table

    section = config.embedding
    if not isinstance(section, schema.Kme):
        return {}, None
    # absent, or another config's fit: that of this one is yet to come
    with suppress(ArtifactError):
        return dict(open_table(config, manifest).tensors), None
    return _shapes(section, manifest)


def _shapes(section: schema.Kme, manifest: Manifest) -> tuple[dict[str, Tensor], str | None]:
    import torch

    from sno_dist.diffusion.maps.factory import transform_of

    counts = [entry.count("model") for entry in manifest.split("seen")]
    free = transform_of(manifest.transform, manifest.shape).free
    features, tensors = _map_shapes(section, counts, free)
    components = section.components or max(1, min(len(counts) - 1, features))
    assumed = None
    if section.components is None:
        assumed = f"{components} components, the most there can be; the fit drops those of noise"
    if isinstance(section.form, schema.FourierForm):
        assumed = "; ".join(filter(None, (assumed, "the fit's own buffers left out")))
    double = {"dtype": torch.float64, "device": "meta"}
    tensors |= {
        "median": torch.ones((), dtype=torch.float64),
        "origin": torch.empty(features, **double),
        "projection": torch.empty(features, components, **double),
        "table": torch.empty(len(counts), components, device="meta"),
    }
    return tensors, assumed


def _map_shapes(
    section: schema.Kme, counts: list[int], shape: tuple[int, ...]
) -> tuple[int, dict[str, Tensor]]:
    """M and the feature map's tensors; those of a quadrature come with the data's extent."""
    import math

    import torch

    held = [min(count, section.samples or count) for count in counts]
    dims, double = math.prod(shape), {"dtype": torch.float64, "device": "meta"}
    match section.form:
        case schema.ExactForm():
            anchors = torch.empty(sum(held), dims, device="meta")
            lengths = torch.empty(len(held), dtype=torch.int64, device="meta")
            return len(held), {"map.anchors": anchors, "map.lengths": lengths}
        case schema.RandomForm(features=features):
            return features, {"map.frequencies": torch.empty(features // 2, dims, **double)}
        case schema.NystromForm(anchors=most):
            taken = min(most, len(held)) * min(max(1, most // len(held)), *held)
            anchors = {"map.anchors": torch.empty(taken, dims, **double)}
            return taken, {**anchors, "map.whiten": torch.empty(taken, taken, **double)}
        case schema.EigenForm():
            from sno_dist.embedding.factory import make_kernel
            from sno_dist.embedding.fit_map import heat_kernel

            kernel = heat_kernel(make_kernel(section.kernel, 1.0))
            return len(kernel.damping(dims)), {"map.dims": torch.tensor(dims)}
        case schema.FourierForm():
            one = torch.ones((), dtype=torch.float64)
            extent = torch.ones(dims, dtype=torch.float64)
            return 1, {"map.bandwidth": one, "map.extent": extent, "map.error": one / 2}
