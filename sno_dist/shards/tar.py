"""Format v1 of a shard: a WebDataset tar whose records are blocks of samples, one .npy each.

All blocks of a shard but the last hold the same number of samples, so a sample's bytes lie at
offset + (i // block) * stride + (i % block) * row, and a shard is one strided array in memory.
"""

from __future__ import annotations

import io
import os
import tarfile
from dataclasses import asdict, dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from webdataset.writer import TarWriter

from sno_dist.errors import DataError
from sno_dist.runtime.artifact import sha256

__all__ = ["Shard", "check_size", "map_shard", "write_shard"]

FIX = "build the shards again, or copy this one anew"


@dataclass(frozen=True, kw_only=True, slots=True)
class Shard:
    """One tar, as the manifest has it.

    Args:
        file: Path relative to the artifact.
        count: Samples.
        bytes: Size of the file.
        sha256: Of the file.
        block: Samples per record.
        header: Where the first record's .npy begins.
        offset: Where its first sample begins.
        stride: From one record to the next.
    """

    file: str
    count: int
    bytes: int
    sha256: str
    block: int
    header: int
    offset: int
    stride: int

    def to_json(self) -> dict[str, Any]:
        """A plain mapping."""
        return asdict(self)


def write_shard(root: Path, file: str, samples: NDArray[np.generic], block: int) -> Shard:
    """Write samples as one tar, whole: under a temporary name first, then renamed.

    The bytes depend on the samples alone: no time, owner or order of writing enters.

    Args:
        root: The artifact's folder.
        file: The tar's path below it.
        samples: (n, *shape) uint8 or float32, n >= 1.
        block: Samples per record.
    """
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    # Composed in memory: a writer whose disk is full complains again when it is let go.
    stream = io.BytesIO()
    writer = TarWriter(stream, encoder=False, mtime=0, user="sno", group="sno")
    for index in range(0, len(samples), block):
        record = io.BytesIO()
        np.save(record, np.ascontiguousarray(samples[index : index + block]))
        writer.write({"__key__": f"{index // block:06d}", "npy": record.getvalue()})
    writer.close()
    with part.open("wb") as written:
        written.write(stream.getbuffer())
        written.flush()
        os.fsync(written.fileno())  # its record is on the disk, and must not outlive it
    shard = _describe(part, file, samples, block)
    part.replace(path)
    return shard


def _describe(path: Path, file: str, samples: NDArray[np.generic], block: int) -> Shard:
    with tarfile.open(path) as archive:
        starts = [member.offset_data for member in archive]
    with path.open("rb") as stream:
        stream.seek(starts[0])
        _read_header(stream)
        offset = stream.tell()
    stride = starts[1] - starts[0] if len(starts) > 1 else 0
    assert all(b - a == stride for a, b in pairwise(starts))
    return Shard(
        file=file,
        count=len(samples),
        bytes=path.stat().st_size,
        sha256=sha256(path),
        block=min(block, len(samples)),
        header=starts[0],
        offset=offset,
        stride=stride,
    )


def _read_header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    read = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = read(stream)
    if fortran:
        raise ValueError("a block in column-major order")
    return shape, dtype


def map_shard(
    path: Path, shard: Shard, shape: tuple[int, ...], dtype: str, *, verify: bool
) -> NDArray[np.generic]:
    """A shard in memory: (records, block, *shape), read when touched.

    Index it by [i // block, i % block] with i < count alone; the last record may be short.

    Args:
        path: The tar on a local disk.
        shard: What the manifest says of it.
        shape: One sample's shape.
        dtype: Its numpy type.
        verify: Whether to compare the hash, for which it is read once in a process.

    Raises:
        DataError: If it is missing, cut short, changed, or holds something else.
    """
    _check_bytes(path, shard, verify)
    with path.open("rb") as stream:
        stream.seek(shard.header)
        try:
            found_shape, found_dtype = _read_header(stream)
        except ValueError as error:
            raise DataError("a shard's record is not an .npy block", where=path) from error
    if found_dtype.hasobject:
        raise DataError(
            "a shard holds a pickle, which is never loaded",
            where=path,
            got="dtype object",
            expected=dtype,
            fix="build the shards again from the source",
        )
    if found_shape[1:] != shape or found_dtype != np.dtype(dtype):
        raise DataError(
            "a shard holds other samples than its manifest says",
            where=path,
            got=f"{found_dtype} {found_shape[1:]}",
            expected=f"{dtype} {shape}",
        )
    raw = np.memmap(path, np.uint8, "r")
    row = int(np.prod(shape)) * np.dtype(dtype).itemsize
    inner = np.empty((1, *shape), dtype).strides[1:]
    # A short last record may end before the view does, whose samples from `count` on are not there.
    return np.lib.stride_tricks.as_strided(
        np.frombuffer(raw, dtype, 1, shard.offset),
        (-(-shard.count // shard.block), shard.block, *shape),
        (shard.stride, row, *inner),
        writeable=False,
    )


def check_size(path: Path, shard: Shard) -> None:
    """Refuse a shard that is not there, or not as long as the manifest says.

    Raises:
        DataError: With the place.
    """
    try:
        size = path.stat().st_size
    except OSError:
        raise DataError("a shard is missing", where=path, fix=FIX) from None
    if size != shard.bytes:
        raise DataError(
            "a shard is cut short or has grown",
            where=path,
            got=f"{size} bytes",
            expected=f"{shard.bytes} bytes",
            fix=FIX,
        )


def _check_bytes(path: Path, shard: Shard, verify: bool) -> None:
    check_size(path, shard)
    if verify and (found := _sha256(path, path.stat().st_mtime_ns)) != shard.sha256:
        raise DataError(
            "a shard was changed",
            where=path,
            got=f"sha256 {found[:12]}",
            expected=f"sha256 {shard.sha256[:12]}",
            fix=FIX,
        )


@cache
def _sha256(path: Path, _written: int) -> str:
    """A file's hash: stages and readers of one process open the same shards over and over."""
    return sha256(path)
