"""The user's files that shards were made from, so that changed ones are told from the same."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sno_dist.config import schema
from sno_dist.errors import DataError
from sno_dist.runtime import collectives
from sno_dist.runtime.artifact import digest, sha256
from sno_dist.runtime.share import share_of
from sno_dist.shards.sources.factory import files_of

__all__ = ["CONTENTS", "LISTING", "originals"]

CONTENTS, LISTING = "shards.source.files", "shards.source.listing"
"""Inputs beside the settings of that section."""

Files = Mapping[str, tuple[Path, int, int]]
"""Name below the source's path -> the file, its bytes, its time in ns."""

PHASE = "hashing the source's files"


def originals(source: schema.Source, built: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the user's files are: contents, and a listing of names, sizes and times.

    Contents are read before a build, and later only where the listing is another: files that were
    written again, or copied without their times, are the same data. Ranks share the reading.

    Args:
        source: The config's section.
        built: The inputs of the shards there are, or of an attempt at them; none: they are yet to
            be built.

    Returns:
        Inputs of the shards: those of `built` where the files are the same or not at hand, or it
        tells nothing of them.

    Raises:
        DataError: If a file cannot be looked at.
        Preempted: If the run was asked to stop.

    **Collective.**
    """
    known = {key: built[key] for key in (CONTENTS, LISTING) if key in built} if built else {}
    files = collectives.from_main(lambda: _files(source), PHASE)
    if not files or (built and not known):
        return known
    listing = digest([(name, size, time) for name, (_, size, time) in files.items()])
    if known.get(LISTING) == listing:
        return known
    contents = _contents(files)
    return known if known.get(CONTENTS) == contents else {CONTENTS: contents, LISTING: listing}


def _files(source: schema.Source) -> dict[str, tuple[Path, int, int]]:
    try:
        found = [(name, path, path.stat()) for name, path in sorted(files_of(source).items())]
    except PermissionError:
        # who may read the shards may not read what they were made from
        return {}
    except OSError as error:
        raise DataError(
            "a file of the source cannot be listed",
            where=error.filename,
            got=error.strerror,
            fix="mend or remove it",
        ) from error
    return {name: (path, state.st_size, state.st_mtime_ns) for name, path, state in found}


def _contents(files: Files) -> str:
    """One line for the files' bytes, the same for any number of ranks. **Collective.**"""
    hashes, refused = dict[str, str](), None
    for name in share_of(list(files), PHASE):
        path = files[name][0]
        try:
            hashes[name] = sha256(path)
        except OSError as error:
            refused = refused or DataError(
                "a file of the source cannot be read",
                where=path,
                got=error.strerror,
                fix="mend or remove it",
            )
    for part, error in collectives.gather((hashes, refused), PHASE):
        if error is not None:
            raise error
        hashes |= part
    size = sum(size for _, size, _ in files.values())
    told = digest([(name, hashes[name]) for name in files])
    return f"{len(files)} of {size} bytes, digest {told[:12]}"
