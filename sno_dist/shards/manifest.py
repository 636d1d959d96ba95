"""The manifest: what every shard of a population holds, and where."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import TypeAdapter

from sno_dist.config.load import flatten, shards_folder
from sno_dist.config.schema import Config, NoTransform, Transform
from sno_dist.errors import ArtifactError, DataError
from sno_dist.runtime.artifact import COMPLETE, check_inputs, open_artifact
from sno_dist.shards import remote
from sno_dist.shards.sources.source import Domain, Role
from sno_dist.shards.tar import Shard

__all__ = ["FORMAT", "MANIFEST", "Entry", "Manifest", "SplitName", "evenly", "open_manifest"]

FORMAT = 1
MANIFEST = "manifest.json"
SplitName = Literal["seen", "unseen"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One distribution: its name, its split, and its shards by role."""

    name: str
    split: SplitName
    roles: Mapping[Role, Sequence[Shard]]

    def count(self, role: Role) -> int:
        """How many samples it has in a role."""
        return sum(shard.count for shard in self.roles.get(role, ()))

    def to_json(self) -> dict[str, Any]:
        """A plain mapping."""
        roles = {role: [s.to_json() for s in shards] for role, shards in self.roles.items()}
        return {"name": self.name, "split": self.split, "roles": roles}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Entry:
        """The inverse of `to_json`."""
        roles = {role: [Shard(**s) for s in shards] for role, shards in value["roles"].items()}
        return cls(name=value["name"], split=value["split"], roles=roles)


def evenly(entries: Sequence[Entry], limit: int | None) -> Sequence[Entry]:
    """At most so many distributions, spread evenly over those there are; none: all."""
    if limit is None or limit >= len(entries):
        return entries
    return [entries[round(place)] for place in np.linspace(0, len(entries) - 1, limit)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A population on disk.

    Args:
        root: Folder or URL of the artifact.
        population: Its name.
        domain: "image" or "vector".
        shape: One sample's shape.
        dtype: Numpy type of a sample.
        shift: Mean of the seen training samples, per entry of a vector; (0,) for images. With
            a transform, of their free coordinates; one number for images.
        scale: Their deviation; (255,) for images.
        entries: The distributions, in the source's order.
        audit: What shows that the roles share no raw material.
        transform: The config's section `model.transform` that shift and scale are made for.
        digest: sha256 of the manifest file, for those downstream to pin.
    """

    root: str
    population: str
    domain: Domain
    shape: tuple[int, ...]
    dtype: str
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    entries: Sequence[Entry]
    audit: Mapping[str, Any] = field(default_factory=dict)
    transform: Transform = field(default_factory=NoTransform)
    digest: str = ""

    def split(self, name: SplitName) -> list[Entry]:
        """The distributions of one split, in order."""
        return [entry for entry in self.entries if entry.split == name]

    def entry(self, name: str) -> Entry:
        """One distribution by name.

        Raises:
            DataError: If there is none of that name.
        """
        for entry in self.entries:
            if entry.name == name:
                return entry
        raise DataError("no such distribution", where=self.root, got=name)

    def to_json(self) -> dict[str, Any]:
        """What is written to disk."""
        none = self.transform.kind == "none"
        return {
            **({} if none else {"transform": self.transform.model_dump()}),
            "format": FORMAT,
            "population": self.population,
            "domain": self.domain,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "shift": list(self.shift),
            "scale": list(self.scale),
            "audit": dict(self.audit),
            "entries": [entry.to_json() for entry in self.entries],
        }


def open_manifest(config: Config) -> Manifest:
    """The manifest of a config's shards, local or remote.

    Raises:
        ArtifactError: If the shards are absent, incomplete, damaged, of another format, made for
            another `model.transform`, or in a folder and made of other data than the config says;
            what it leaves out may be anything.
    """
    root = shards_folder(config)
    if "://" not in root:
        artifact = open_artifact(Path(root), "shards", verify=False)
        check_inputs(artifact, {**artifact.inputs, **_said(config)})
        return _checked(_parse(root, (Path(root) / MANIFEST).read_bytes()), config)
    try:
        expected = json.loads(remote.read(f"{root}/{COMPLETE}"))["files"][MANIFEST]["sha256"]
        text = remote.read(f"{root}/{MANIFEST}")
    except (OSError, ValueError) as error:
        raise ArtifactError(
            "no complete shards at this address", where=root, got=str(error)[:160]
        ) from error
    except (KeyError, TypeError) as error:
        raise ArtifactError(
            "no complete shards at this address",
            where=f"{root}/{COMPLETE}",
            got=f"other JSON ({type(error).__name__}: {error})",
            expected=f"files, with the sha256 of {MANIFEST}",
            fix="check shards.path",
        ) from error
    if hashlib.sha256(text).hexdigest() != expected:
        raise ArtifactError("the manifest is damaged", where=root)
    return _checked(_parse(root, text), config)


def _said(config: Config) -> dict[str, Any]:
    """What a config itself says that shards are made of, without the defaults of the rest."""
    return flatten(config.shards, "shards", said={"source", "split", "block", "shard"})


def _checked(manifest: Manifest, config: Config) -> Manifest:
    if manifest.transform != config.model.transform:
        raise ArtifactError(
            "shards whose shift and scale are made for another transform",
            where=manifest.root,
            got=f"model.transform: {manifest.transform.model_dump()}",
            expected=config.model.transform.model_dump(),
            fix="build shards of this config in another folder (shards.path=...)",
        )
    return manifest


def _parse(root: str, text: bytes) -> Manifest:
    try:
        value = json.loads(text)
        if value["format"] != FORMAT:
            raise ArtifactError(
                "shards of another format", where=root, got=value["format"], expected=FORMAT
            )
        return Manifest(
            root=root,
            population=value["population"],
            domain=value["domain"],
            shape=tuple(value["shape"]),
            dtype=value["dtype"],
            shift=tuple(value["shift"]),
            scale=tuple(value["scale"]),
            entries=[Entry.from_json(entry) for entry in value["entries"]],
            audit=value["audit"],
            transform=TypeAdapter(Transform).validate_python(
                value.get("transform", {"kind": "none"})
            ),
            digest=hashlib.sha256(text).hexdigest(),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            "the manifest cannot be read",
            where=f"{root}/{MANIFEST}",
            got=f"{type(error).__name__}: {error}",
            fix="build the shards again",
        ) from error
