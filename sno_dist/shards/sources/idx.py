"""The IDX format of MNIST: a magic number, big-endian sizes, then the bytes."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sno_dist.errors import DataError

__all__ = ["read_idx"]


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, plain or .gz.

    Args:
        path: The file; one that ends in .gz is decompressed.
        dimensions: Axes that it must have: 3 for images, 1 for labels.

    Raises:
        DataError: If the file cannot be read, has another magic number or another length.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            "cannot read an IDX file", where=path, got=error, fix="copy or download it again"
        ) from error
    magic = struct.pack(">HBB", 0, 8, dimensions)
    if data[:4] != magic:
        raise DataError(
            "not an IDX file of unsigned bytes",
            where=path,
            got=f"magic number {data[:4].hex() or 'none, the file is empty'}",
            expected=f"{magic.hex()} ({dimensions} axes)",
            fix="check that the file is the right one; a .gz file must end in .gz",
        )
    header = 4 + 4 * dimensions
    sizes = struct.unpack(f">{dimensions}I", data[4:header]) if len(data) >= header else ()
    expected = header + math.prod(sizes) if sizes else header
    if len(data) != expected or not sizes:
        raise DataError(
            "an IDX file is truncated" if len(data) <= expected else "an IDX file is too long",
            where=path,
            got=f"{len(data)} bytes",
            expected=f"{expected} bytes for sizes {sizes}" if sizes else f"at least {header}",
            fix="copy or download it again",
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(sizes)
