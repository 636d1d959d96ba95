"""Artifacts: folders that are either whole or not there.

A COMPLETE file lists the size and sha256 of everything in the folder; `runtime/writing.py` gives a
folder one as its last step. Readers ignore a folder without.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sno_dist.errors import ArtifactError
from sno_dist.runtime import collectives
from sno_dist.runtime.disk import check_seen

__all__ = [
    "COMPLETE",
    "FORMAT",
    "Artifact",
    "check_inputs",
    "digest",
    "is_complete",
    "open_artifact",
    "reuse",
    "sha256",
    "write_json",
]

COMPLETE = "COMPLETE"
FORMAT = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """A complete folder on disk.

    Args:
        path: The folder.
        kind: What it holds, such as "shards" or "checkpoint".
        inputs: What it was made from: config values and upstream digests, by dotted name.
        files: Relative path -> {"bytes", "sha256"}.
    """

    path: Path
    kind: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """One hash of everything inside, for those downstream to pin."""
        return digest({name: entry["sha256"] for name, entry in sorted(self.files.items())})


def digest(value: Any) -> str:
    """The sha256 of a JSON value in canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sha256(path: Path) -> str:
    """The sha256 of a file's bytes."""
    state = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole: a reader sees the old one or the new one, never a part."""
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("w") as stream:
        json.dump(value, stream, indent=1, sort_keys=True)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def is_complete(path: Path) -> bool:
    """Whether a folder carries a COMPLETE file."""
    return (path / COMPLETE).is_file()


def open_artifact(path: Path, kind: str | None = None, *, verify: bool = True) -> Artifact:
    """Open a complete folder, checking its files' sizes and, with `verify`, their hashes.

    Args:
        path: The folder.
        kind: What it has to hold; none: anything.
        verify: Whether files are read to their end.

    Raises:
        ArtifactError: If the folder is absent, incomplete, of another kind or damaged.
    """
    if not is_complete(path):
        raise ArtifactError(
            f"no complete {kind or 'folder'} artifact",
            where=path,
            got="a folder without COMPLETE" if path.is_dir() else "nothing",
            fix="run the stage that writes it; the same command resumes",
        )
    artifact = _read(path)
    if kind not in (None, artifact.kind):
        raise ArtifactError("wrong kind of artifact", where=path, got=artifact.kind, expected=kind)
    for name, entry in artifact.files.items():
        _check_file(path / name, entry, verify)
    return artifact


def _read(path: Path) -> Artifact:
    """What COMPLETE says, as it says it."""
    complete = path / COMPLETE
    try:
        head = json.loads(complete.read_text())
        if head["format"] != FORMAT:
            raise ArtifactError(
                "an artifact of another format", where=path, got=head["format"], expected=FORMAT
            )
        return Artifact(path=path, kind=head["kind"], inputs=head["inputs"], files=head["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            "COMPLETE cannot be read",
            where=complete,
            got=str(error),
            expected="JSON with format, kind, inputs and files",
            fix="delete the folder and run its stage again",
        ) from error


def reuse(path: Path, kind: str, inputs: Mapping[str, Any]) -> Artifact | None:
    """The complete artifact at `path`, if it was made from these very inputs; None if absent.

    Raises:
        ArtifactError: If it was made from other inputs; the message names what differs. Or if
            another rank does not see it.

    **Collective**: rank 0 says whether it is there, since nodes may see a shared disk differently.
    """
    # A node that looks before it is there may be told so for a minute by its network disk's cache.
    found = collectives.world().is_main and is_complete(path)
    if not collectives.broadcast(found, f"looking for {kind}"):
        return None
    check_seen(path / COMPLETE)
    artifact = open_artifact(path, kind, verify=False)
    check_inputs(artifact, inputs)
    return artifact


def check_inputs(artifact: Artifact, inputs: Mapping[str, Any]) -> None:
    """Refuse an artifact made from other inputs.

    Raises:
        ArtifactError: Naming up to three inputs that differ.
    """
    old, new = artifact.inputs, json.loads(json.dumps(inputs))
    changed = [
        f"{key}: {old.get(key, '(none)')} -> {new.get(key, '(none)')}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
    if changed:
        were = "were" if artifact.kind.endswith("s") else "was"
        raise ArtifactError(
            f"the {artifact.kind} here {were} made of other settings or data",
            where=artifact.path,
            got="; ".join(changed[:3]) + (f"; and {len(changed) - 3} more" * (len(changed) > 3)),
            fix="choose another folder (run=..., shards.path=...) or delete this one",
        )


def _check_file(path: Path, entry: Mapping[str, Any], verify: bool) -> None:
    fix = "delete the folder and run its stage again"
    if not path.is_file():
        raise ArtifactError("a file of the artifact is missing", where=path, fix=fix)
    if path.stat().st_size != entry["bytes"]:
        raise ArtifactError(
            "a file of the artifact has the wrong size",
            where=path,
            got=f"{path.stat().st_size} bytes",
            expected=f"{entry['bytes']} bytes",
            fix=fix,
        )
    if verify and (found := sha256(path)) != entry["sha256"]:
        raise ArtifactError(
            "a file of the artifact is damaged",
            where=path,
            got=f"sha256 {found[:12]}",
            expected=f"sha256 {entry['sha256'][:12]}",
            fix=fix,
        )
