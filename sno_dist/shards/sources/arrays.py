"""Arrays of samples: every .npy file, and every key of an .npz file, a distribution."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sno_dist.errors import DataError
from sno_dist.shards.sources.groups import Rounding, require_finite
from sno_dist.shards.sources.resize import resize
from sno_dist.shards.sources.source import Domain

__all__ = ["ArrayFiles", "read_arrays"]

_DAMAGE = (OSError, EOFError, ValueError, zipfile.BadZipFile)
_ADVICE = (
    "save (n, D) numbers for vectors, (n, H, W) or (n, H, W, C) uint8 for images,"
    " one array a distribution"
)


@dataclass(frozen=True, kw_only=True)
class ArrayFiles:
    """Arrays read when asked for; `Groups`.

    Args:
        members: Each group's file, and its key in an .npz.
        sizes: Rows per group.
        domain: The kind of sample.
        shape: One sample's shape.
    """

    members: Mapping[str, tuple[Path, str | None]]
    sizes: Mapping[str, int]
    domain: Domain
    shape: tuple[int, ...]

    def read(self, group: str, rows: NDArray[np.intp]) -> NDArray[np.generic]:
        """Some rows of an array, images converted to the population's mode and size."""
        array = _load(*self.members[group])[rows]
        if self.domain == "vector":
            return _vectors(array)
        channels, height, width = self.shape
        return resize(_channels(array, channels), height, width)


def read_arrays(
    files: Sequence[Path], mode: Literal["L", "RGB"], size: tuple[int, int] | None
) -> ArrayFiles:
    """Check every array once; their rows are read again when asked for.

    Args:
        files: .npy and .npz files.
        mode: Images: grey or colour.
        size: Images: (H, W) to resize to, or none for that of the first array.

    Raises:
        DataError: If an array cannot be read, has another form than the first, is not finite, two
            have the same name, or a column's differences are lost in float32.
    """
    members: dict[str, tuple[Path, str | None]] = {}
    sizes: dict[str, int] = {}
    first: tuple[Domain, tuple[int, ...]] | None = None
    rounding = Rounding()
    for file, key in [(path, key) for path in files for key in _keys(path)]:
        group, where = (file.stem if key is None else key), _where(file, key)
        if group in members:
            raise DataError(
                "two arrays have the same name",
                where=where,
                got=f"{group}, as in {_where(*members[group])}",
                expected="one array for each distribution",
                fix="rename or merge them",
            )
        array = _load(file, key)
        form = _form(array, where)
        first = first or form
        # Images of different sizes are resized and of different channels converted; vectors not.
        if form[0] != first[0] or (form[0] == "vector" and form[1] != first[1]):
            raise DataError(
                "arrays of different widths or kinds",
                where=where,
                got=f"{form[0]}s of shape {form[1]}",
                expected=f"{first[0]}s of shape {first[1]}, as in the first array",
                fix="give every distribution the same columns",
            )
        if form[0] == "vector":
            require_finite(_vectors(array), where)
            if not np.can_cast(array.dtype, np.float32):  # what arrives to the bit needs no pass
                rounding.add(array)
        members[group], sizes[group] = (file, key), len(array)
    if first is None:
        raise DataError("no arrays", where=", ".join(map(str, files)), fix=_ADVICE)
    domain, shape = first
    rounding.check(os.path.commonpath(files), [f"{column} (from 0)" for column in range(shape[0])])
    if domain == "image":
        shape = (len(mode), *(size or shape[:2]))
    return ArrayFiles(members=members, sizes=sizes, domain=domain, shape=shape)


def _where(file: Path, key: str | None) -> str:
    return str(file) if key is None else f"{file}[{key}]"


def _keys(file: Path) -> list[str | None]:
    if file.suffix.lower() == ".npy":
        return [None]
    with _archive(file) as archive:
        return list(archive.files)


def _load(file: Path, key: str | None) -> NDArray[Any]:
    if key is not None:
        with _archive(file) as archive:
            try:
                return archive[key]
            except (*_DAMAGE, zlib.error) as error:
                raise _unreadable(_where(file, key), error) from error
    try:
        loaded = np.load(file, mmap_mode="r", allow_pickle=False)
    except _DAMAGE as error:
        raise _unreadable(str(file), error) from error
    if isinstance(loaded, np.ndarray):
        return loaded
    loaded.close()
    raise DataError("not an .npy file", where=file, expected="what numpy.save writes")


@contextmanager
def _archive(file: Path) -> Iterator[np.lib.npyio.NpzFile]:
    with ExitStack() as opened:
        try:
            # numpy would leave a file that it opened itself open when the archive is damaged.
            stream = opened.enter_context(file.open("rb"))
            loaded = np.load(stream, allow_pickle=False)
        except _DAMAGE as error:
            raise _unreadable(str(file), error) from error
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise DataError("not an .npz file", where=file, expected="what numpy.savez writes")
        yield opened.enter_context(loaded)


def _unreadable(where: str, error: Exception) -> DataError:
    # numpy tells what it would have to unpickle by its messages alone: two on an array of
    # objects, and one, which advises to allow pickles, on any file that is not its own.
    said = str(error)
    if "Object arrays" in said or "Python objects" in said:
        return DataError(
            "an object array",
            where=where,
            got="Python objects, such as rows of different lengths",
            expected="an array of numbers",
            fix="numpy.savez(path, **{name: rows}) with one array for each distribution",
        )
    return DataError(
        "cannot read an array",
        where=where,
        got="another format" if "pickle" in said else error,
        expected="a whole file, as numpy.save and numpy.savez write it",
        fix="save it again",
    )


def _form(array: NDArray[Any], where: str) -> tuple[Domain, tuple[int, ...]]:
    """What an array holds, and the shape of one sample as stored."""
    sample = array.shape[1:]
    if all(sample):
        # (n, D) bytes might as well be one grey image: better to ask than to guess.
        if array.ndim == 2 and array.dtype.kind in "fiu" and array.dtype != np.uint8:
            return "vector", sample
        channels = sample[2:]
        if array.dtype == np.uint8 and array.ndim in (3, 4) and channels in ((), (1,), (3,)):
            return "image", sample
    raise DataError(
        "an array is neither vectors nor images",
        where=where,
        got=f"shape {array.shape}, {array.dtype}",
        expected="(n, D) float, or (n, H, W) or (n, H, W, 1 or 3) uint8",
        fix=_ADVICE,
    )


def _vectors(array: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, and is refused as such
        return np.asarray(array, np.float32)


def _channels(array: NDArray[np.uint8], wanted: int) -> NDArray[np.uint8]:
    """(n, H, W) or (n, H, W, C) to (n, `wanted`, H, W)."""
    images = array[:, None] if array.ndim == 3 else array.transpose(0, 3, 1, 2)
    if images.shape[1] == wanted:
        return images
    if wanted == 3:
        return np.repeat(images, 3, axis=1)
    # ITU-R 601 luma in PIL's integer arithmetic, so arrays and image files agree.
    luma = np.tensordot(np.array([19595, 38470, 7471], np.int64), images.astype(np.int64), (0, 1))
    return ((luma + 0x8000) >> 16).astype(np.uint8)[:, None]
