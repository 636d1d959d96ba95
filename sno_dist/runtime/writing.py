"""Writing artifacts: under a temporary sibling, synced, sealed by COMPLETE, and renamed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sno_dist.errors import ArtifactError, ConfigError, DataError
from sno_dist.runtime import collectives
from sno_dist.runtime.artifact import (
    COMPLETE,
    FORMAT,
    Artifact,
    check_inputs,
    digest,
    is_complete,
    sha256,
    write_json,
)
from sno_dist.runtime.disk import disk_watched
from sno_dist.runtime.lock import LOCK, locked

__all__ = ["attempted", "writing"]

INPUTS = ".inputs"
"""What an attempt that is not complete yet is made from."""
REFUSED = ".refused"
"""There where an attempt ended by what is wrong with its data or settings."""


@contextmanager
def writing(
    path: Path, kind: str, inputs: Mapping[str, Any], *, resume: bool = False
) -> Iterator[Path]:
    """Write an artifact: all ranks get a temporary folder to fill; rank 0 seals and renames it.

    With `resume`, what an interrupted attempt with the same inputs left is still there. Files and
    folders whose names begin with a dot are for that alone: they are no part of the artifact, and
    are dropped when it is published.

    An attempt with other inputs is not dropped for this one, unless its data or settings were
    refused. A folder that no stage wrote is not replaced; a link to one is followed.

    Raises:
        ArtifactError: If the folder cannot be written or holds other files, the ranks do not share
            it, or an attempt that could be resumed had other inputs.
        RunError: If another run is writing it.

    **Collective** on entry and exit.
    """
    main = collectives.world().is_main
    path = Path(os.path.realpath(path))
    collectives.from_main(lambda: _check_place(path), f"opening {kind}")
    temporary = _attempt(path)
    with disk_watched(path.parent):
        if main:
            temporary.mkdir(parents=True, exist_ok=True)
        with locked(temporary):
            begun = _begun(path, kind, inputs) if main and resume else None
            if begun := collectives.broadcast(begun, f"opening {kind}"):
                check_inputs(begun, inputs)
                if main:
                    (temporary / REFUSED).unlink(missing_ok=True)
            elif main:
                _clear(temporary, inputs)
            collectives.barrier(f"opening {kind}")
            try:
                yield temporary
            except (ConfigError, DataError):
                with suppress(OSError):  # what is told is the first error
                    (temporary / REFUSED).touch()
                raise
            collectives.barrier(f"closing {kind}")
            files = _hashed(temporary, kind)
            if main:
                _seal(temporary, {"kind": kind, "inputs": dict(inputs), "files": files})
                _replace(temporary, path)
            collectives.barrier(f"publishing {kind}")


def _check_place(path: Path) -> None:
    """Refuse a place where an artifact would replace what no stage wrote."""
    if path.is_mount():
        got, fix = "a mounted disk, which cannot be renamed", "name a folder in it"
    elif path.is_file():
        got, fix = "a file", "name another"
    elif path.is_dir() and not is_complete(path) and (held := sorted(os.listdir(path))):
        got = ", ".join(held[:3]) + (f" and {len(held) - 3} more" * (len(held) > 3))
        fix = "name a folder of its own (run=, shards.path=, judge.path=), or move what is in it"
    else:
        return
    raise ArtifactError(
        "this would be replaced, and no stage wrote it",
        where=path,
        got=got,
        expected="a complete artifact, an empty folder or nothing",
        fix=fix,
    )


def _attempt(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def attempted(path: Path) -> dict[str, Any] | None:
    """The inputs of an interrupted attempt at an artifact; None if there is none to go on from."""
    try:
        return dict(json.loads((_attempt(Path(os.path.realpath(path))) / INPUTS).read_text()))
    except (OSError, ValueError, TypeError):
        return None  # not begun, or by an earlier version, which kept a hash alone


def _begun(path: Path, kind: str, inputs: Mapping[str, Any]) -> Artifact | None:
    """What an interrupted attempt was to make; None where there is nothing to go on from."""
    known, temporary = attempted(path), _attempt(path)
    if known is None or ((temporary / REFUSED).exists() and digest(known) != digest(inputs)):
        return None
    return Artifact(path=temporary, kind=kind, inputs=known)


def _clear(temporary: Path, inputs: Mapping[str, Any]) -> None:
    """Begin anew; a kill midway leaves what is not gone on from."""
    (temporary / INPUTS).unlink(missing_ok=True)
    for left in temporary.iterdir():
        if left.name != LOCK:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    write_json(temporary / INPUTS, dict(inputs))


def _hashed(temporary: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Sync the artifact's files, each on one rank: relative path -> size and hash."""
    sizes = _sizes(temporary) if collectives.world().is_main else {}
    sizes = collectives.broadcast(sizes, f"sealing {kind}")
    names, hashes = list(sizes), dict[str, str]()
    mode = 0o666 & ~_umask()
    for index in collectives.world().deal_evenly(list(sizes.values())):
        # safetensors makes files that only their owner can read
        (temporary / names[index]).chmod(mode)
        _sync(temporary / names[index])
        hashes[names[index]] = sha256(temporary / names[index])
    for part in collectives.gather(hashes, f"sealing {kind}"):
        hashes |= part
    return {name: {"bytes": sizes[name], "sha256": hashes[name]} for name in names}


def _umask() -> int:
    """It can be read by setting it alone."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _sizes(temporary: Path) -> dict[str, int]:
    """Relative path -> bytes of the artifact's files, in order."""
    sizes = {}
    for file in temporary.rglob("*"):
        name = file.relative_to(temporary)
        if file.is_file() and name.name != COMPLETE and not any(p[0] == "." for p in name.parts):
            sizes[name.as_posix()] = file.stat().st_size
    return dict(sorted(sizes.items()))


def _seal(temporary: Path, described: Mapping[str, Any]) -> None:
    write_json(temporary / COMPLETE, {"format": FORMAT, **described})
    _sync(temporary)


def _replace(new: Path, path: Path) -> None:
    _check_place(path)  # again: this may have taken hours
    old = path.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.rename(old)
    new.rename(path)
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)
    # Not before: what is finished can be found again up to the moment when it is published.
    for left in path.glob(".*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
