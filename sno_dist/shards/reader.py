"""Random access to samples: by distribution, role and index, from local or remote shards."""

from __future__ import annotations

import os
import resource
import secrets
import tempfile
import time
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sno_dist.config.schema import Config
from sno_dist.errors import DataError
from sno_dist.runtime.artifact import sha256
from sno_dist.shards import remote
from sno_dist.shards.manifest import Entry, Manifest
from sno_dist.shards.sources.source import Role
from sno_dist.shards.tar import Shard, check_size, map_shard

__all__ = ["Reader", "reader_of"]

OPEN = 4096
"""Shards that are held mapped, if the system lets a process have so many files open."""
ATTEMPTS = 4


class Reader:
    """Reads samples of a population; every shard is checked when it is first opened.

    Those used last are held open. One that is opened again has its size checked, and its hash only
    if it was written meanwhile.

    A remote shard is fetched whole into the cache, checked, and then read like a local one.

    Args:
        manifest: The population.
        verify: Whether to compare hashes, beside sizes, of shards when they are opened.
        cache: Where remote shards are kept; none: a folder of the user's in the system's
            temporary one.
    """

    def __init__(
        self, manifest: Manifest, *, verify: bool = True, cache: str | None = None
    ) -> None:
        self.manifest = manifest
        self._verify = verify
        self._remote = "://" in manifest.root
        own = Path(tempfile.gettempdir()) / f"sno-dist-shards-{os.getuid()}"
        self._cache = Path(cache or own).expanduser()
        self._maps: OrderedDict[str, tuple[Path, NDArray[np.generic]]] = OrderedDict()
        self._most = min(OPEN, _open_files() // 2)

    def take(self, entry: Entry, role: Role, index: NDArray[np.int64]) -> NDArray[np.generic]:
        """The samples at `index`, in that order: (len(index), *shape), a copy.

        Raises:
            DataError: If an index is out of range, or a shard is missing or damaged.
        """
        count = entry.count(role)
        if len(index) and (index.min() < 0 or index.max() >= count):
            raise DataError(
                "sample index out of range",
                where=f"distribution {entry.name}, role {role}",
                got=int(index.max()),
                expected=f"below {count}",
            )
        shards = entry.roles[role]
        if len(shards) == 1:
            return self._rows(shards[0], index)
        out = np.empty((len(index), *self.manifest.shape), self.manifest.dtype)
        first = 0
        for shard in shards:
            here = (index >= first) & (index < first + shard.count)
            if here.any():
                out[here] = self._rows(shard, index[here] - first)
            first += shard.count
        return out

    def all(self, entry: Entry, role: Role) -> NDArray[np.generic]:
        """Every sample of a distribution in a role, (n, *shape)."""
        return self.take(entry, role, np.arange(entry.count(role)))

    def _rows(self, shard: Shard, index: NDArray[np.int64]) -> NDArray[np.generic]:
        path, blocks = self._map(shard)
        # Memory that lies beyond the end of a file that was cut meanwhile ends the process.
        check_size(path, shard)
        return blocks[index // shard.block, index % shard.block]

    def _map(self, shard: Shard) -> tuple[Path, NDArray[np.generic]]:
        if shard.file not in self._maps:
            self._maps[shard.file] = self._open(shard)
            if len(self._maps) > self._most:
                self._maps.popitem(last=False)
        self._maps.move_to_end(shard.file)
        return self._maps[shard.file]

    def _open(self, shard: Shard) -> tuple[Path, NDArray[np.generic]]:
        if not self._remote:
            return self._mapped(Path(self.manifest.root) / shard.file, shard)
        path = self._cache / shard.sha256[:2] / f"{shard.sha256}.tar"
        if path.is_file():
            # what has been damaged here is whole where it came from
            with suppress(DataError):
                return self._mapped(path, shard)
        _fetch(f"{self.manifest.root}/{shard.file}", shard, path)
        return self._mapped(path, shard)

    def _mapped(self, path: Path, shard: Shard) -> tuple[Path, NDArray[np.generic]]:
        shape, dtype = self.manifest.shape, self.manifest.dtype
        return path, map_shard(path, shard, shape, dtype, verify=self._verify)


def reader_of(config: Config, manifest: Manifest, *, verify: bool = True) -> Reader:
    """A reader as the config's section shards has it; without `verify` hashes are not compared."""
    verify = verify and config.shards.verify == "full"
    return Reader(manifest, verify=verify, cache=config.shards.cache)


def _open_files() -> int:
    """How many files this process may have open, after asking for as many as it may ask for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4 * OPEN if hard == resource.RLIM_INFINITY else min(hard, 4 * OPEN)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return 4 * OPEN if soft == resource.RLIM_INFINITY else soft


def _fetch(url: str, shard: Shard, path: Path) -> None:
    """Bring a shard into the cache, with a bounded number of attempts, and check its hash."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            "remote shards cannot be kept",
            where=path.parent,
            got=error.strerror,
            fix="set shards.cache to a folder that can be written",
        ) from error
    # not by the process alone: containers that share the cache number theirs alike
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(0.2 * 2**attempt)
        try:
            remote.fetch(url, part)
        except (OSError, ValueError) as error:
            problem = str(error)[:160]
            continue
        if (found := sha256(part)) == shard.sha256:
            part.replace(path)
            return
        problem = f"sha256 {found[:12]} instead of {shard.sha256[:12]}"
    part.unlink(missing_ok=True)
    raise DataError(
        "a remote shard could not be fetched whole",
        where=url,
        got=f"{problem}, {ATTEMPTS} times",
        fix="check the address and the network; what was fetched so far is kept",
    )
