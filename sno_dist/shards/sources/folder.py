"""Your own data: image folders, arrays, or a table; dealt to the roles by chance or by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sno_dist.config.schema import Folder, Split
from sno_dist.errors import ConfigError, DataError
from sno_dist.runtime import collectives
from sno_dist.runtime.rng import generator
from sno_dist.runtime.share import share_of
from sno_dist.shards.sources.arrays import read_arrays
from sno_dist.shards.sources.groups import Groups, safe_names
from sno_dist.shards.sources.images import ImageFolders, image_files, read_image_folders, visible
from sno_dist.shards.sources.source import Distribution, Domain, Role
from sno_dist.shards.sources.split import SplitName, assign
from sno_dist.shards.sources.tables import read_table

__all__ = ["FolderSource", "deal", "folder_files", "folder_source"]

_SEED = 0  # which samples are held out is a property of the data, not of a run
_ARRAYS = (".npy", ".npz")
_TABLES = (".csv", ".parquet")


def folder_source(config: Folder, split: Split) -> FolderSource:
    """Make the source of a folder or a file.

    Args:
        config: Where the data is and how to read it.
        split: Which distributions are unseen.

    Raises:
        ConfigError: If the settings contradict each other or the kind of data.
        DataError: If the data is missing, damaged, of the wrong form, or a distribution has fewer
            than 2 samples left for the model.
    """
    try:
        groups = _read(config)
    except OSError as error:
        raise DataError(
            "a folder of the source cannot be listed",
            where=error.filename,
            got=error.strerror,
            fix="mend its permissions or remove it",
        ) from error
    if config.size is not None and groups.domain == "vector":
        raise ConfigError(
            "vectors have no height and width", where="shards.source.size", fix="remove it"
        )
    given = safe_names(list(groups.sizes))
    by_hand = groups.roles if isinstance(groups, ImageFolders) else {}
    if by_hand:
        rows = {name: by_hand[raw] for name, raw in given.items()}
    else:
        shares = _shares(config, groups.domain)
        rows = {name: deal(groups.sizes[raw], shares, raw) for name, raw in given.items()}
    for name, roles in rows.items():
        left = len(roles.get("model", ()))
        if left < 2:
            raise DataError(
                f"distribution {given[name]!r} has too few samples",
                where=config.path,
                got=f"{groups.sizes[given[name]]}, of which {left} for the model",
                expected="2 or more for the model",
                fix="add samples, or lower shards.source.reference and shards.source.judge",
            )
    return FolderSource(groups=groups, given=given, rows=rows, splits=assign(list(given), split))


def folder_files(config: Folder) -> dict[str, Path]:
    """The files that the source reads, by their names below its path; none where it isn't there."""
    path = Path(config.path).expanduser()
    if not path.is_dir():
        return {path.name: path} if path.is_file() else {}
    arrays, folders = _parts(visible(path))
    images = [file for folder in folders for file in image_files(folder)]
    return {file.relative_to(path).as_posix(): file for file in (*arrays, *images)}


def _shares(config: Folder, domain: Domain) -> dict[Role, float]:
    shares: dict[Role, float] = {"reference": config.reference}
    if domain == "image":
        shares["judge"] = config.judge
    if sum(shares.values()) >= 1:
        raise ConfigError(
            "the shares leave nothing for the model",
            where="shards.source.reference and shards.source.judge",
            got=sum(shares.values()),
            expected="a sum below 1",
        )
    return shares


def deal(count: int, shares: Mapping[Role, float], group: str) -> dict[Role, NDArray[np.intp]]:
    """Deal a distribution's samples to the roles by a seeded permutation.

    Args:
        count: How many samples there are.
        shares: The share of each held-out role; one above 0 gets one sample at least.
        group: The distribution's name, which keys the permutation.

    Returns:
        The sample indices of each role that has a share; the rest is `model`.
    """
    order = generator(_SEED, "roles", group).permutation(count)
    roles: dict[Role, NDArray[np.intp]] = {}
    start = 0
    for role, share in shares.items():
        if share > 0:
            stop = start + max(1, round(share * count))
            roles[role] = order[start:stop]
            start = stop
    return {"model": order[start:], **roles}


@dataclass(frozen=True, kw_only=True, eq=False)
class FolderSource:
    """The user's own distributions; a `Source`.

    Args:
        groups: What reads the samples.
        given: The name that the user gave to each distribution.
        rows: The sample indices of each distribution and role.
        splits: Which distributions are unseen.
    """

    groups: Groups
    given: Mapping[str, str]
    rows: Mapping[str, Mapping[Role, NDArray[np.intp]]]
    splits: Mapping[str, SplitName]

    @property
    def domain(self) -> Domain:
        """What the files hold."""
        return self.groups.domain

    @property
    def shape(self) -> tuple[int, ...]:
        """One sample's shape."""
        return self.groups.shape

    @property
    def roles(self) -> Sequence[Role]:
        """Those with a share; vectors have no classifier."""
        return tuple(next(iter(self.rows.values())))

    def distributions(self) -> Sequence[Distribution]:
        """In the order of the files' or groups' names."""
        return [Distribution(name=name, split=split) for name, split in self.splits.items()]

    def draw(self, name: str, role: Role) -> NDArray[np.generic]:
        """The samples of one distribution in one role: (n, *shape).

        Raises:
            DataError: If an image cannot be read.
        """
        return self.groups.read(self.given[name], self.rows[name][role])

    def audit(self) -> Mapping[str, Any]:
        """Samples per role, and how many distinct ones are, byte for byte, in two roles anywhere.

        Reads all samples again, one distribution and role at a time, each on one rank.

        **Collective.**
        """
        own: dict[Role, list[NDArray[np.uint64]]] = {role: [_hashes([])] for role in self.roles}
        for name in share_of(list(self.given), "comparing roles"):
            for role in self.roles:
                own[role].append(_hashes(self.draw(name, role)))
        hashes: dict[Role, NDArray[np.uint64]] = {role: _distinct(own[role]) for role in own}
        parts = collectives.gather_on_main(hashes, "comparing roles")
        shared = collectives.broadcast(_shared(parts, self.roles), "comparing roles")
        return {
            "samples": {r: sum(len(rows[r]) for rows in self.rows.values()) for r in self.roles},
            "shared": shared,
            "shared_total": sum(shared.values()),
            "renamed": {name: raw for name, raw in self.given.items() if name != raw},
        }


def _shared(
    parts: Sequence[Mapping[Role, NDArray[np.uint64]]], roles: Sequence[Role]
) -> dict[str, int]:
    """How many hashes are in each two roles; of no parts, nothing."""
    if not parts:
        return {}
    seen = {role: _distinct([part[role] for part in parts]) for role in roles}
    return {
        f"{a}+{b}": len(np.intersect1d(seen[a], seen[b], assume_unique=True))
        for a, b in combinations(seen, 2)
    }


def _distinct(parts: Sequence[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    return np.unique(np.concatenate(parts))


def _hashes(samples: Iterable[NDArray[np.generic]]) -> NDArray[np.uint64]:
    # 64 bits: among a hundred million samples a false match has a chance of about 1 in 4,000.
    digests = (hashlib.blake2b(row.tobytes(), digest_size=8).digest() for row in samples)
    return np.frombuffer(b"".join(digests), np.uint64)


def _parts(entries: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The arrays among a path's entries, and the folders of images."""
    arrays = [e for e in entries if e.suffix.lower() in _ARRAYS and e.is_file()]
    return arrays, [e for e in entries if e.is_dir()]


def _read(config: Folder) -> Groups:
    path = Path(config.path).expanduser()
    if not path.exists():
        raise DataError("no such file or folder", where=path, fix="set shards.source.path")
    if path.is_file() and path.suffix.lower() in _TABLES:
        return read_table(path, config.group, config.columns)
    if config.group is not None or config.columns is not None:
        raise ConfigError(
            "group and columns belong to tables",
            where="shards.source.group and shards.source.columns",
            got=path,
            expected="a .csv or .parquet file",
        )
    entries = visible(path) if path.is_dir() else [path]
    arrays, folders = _parts(entries)
    if bool(arrays) == bool(folders):
        raise DataError(
            "found both folders and arrays" if arrays else "found no distributions",
            where=path,
            got=", ".join(e.name for e in entries[:5]) or "nothing",
            expected="a folder of image folders or of .npy/.npz files, or a .csv/.parquet file",
            fix="check shards.source.path",
        )
    if arrays:
        return read_arrays(arrays, config.mode, config.size)
    return read_image_folders(path, config.mode, config.size)
