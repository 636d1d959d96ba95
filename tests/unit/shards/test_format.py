"""Format v1: other programs read it, and nothing damaged is read as if it were whole."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset

from sno_dist.errors import DataError
from sno_dist.shards.tar import Shard, map_shard, write_shard
from tests.unit.shards.small import Touches

SHAPE = (1, 4, 6)


def samples(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def read(root: Path, shard: Shard, *, verify: bool = True) -> np.ndarray:
    view = map_shard(root / shard.file, shard, SHAPE, "uint8", verify=verify)
    index = np.arange(shard.count)
    return view[index // shard.block, index % shard.block]


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 64, 100])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_round_trip(tmp_path: Path, count: int, dtype: str) -> None:
    written = samples(count).astype(dtype)
    shard = write_shard(tmp_path, "a/x.tar", written, 32)
    view = map_shard(tmp_path / "a/x.tar", shard, SHAPE, dtype, verify=True)
    index = np.arange(count)
    np.testing.assert_array_equal(view[index // shard.block, index % shard.block], written)


@pytest.mark.parametrize("count", [1000, 1001])
def test_a_shard_is_mapped_however_its_last_record_ends(tmp_path: Path, count: int) -> None:
    shard = write_shard(tmp_path, "x.tar", np.zeros((count, *SHAPE), np.uint8), 250)
    held: Any = map_shard(tmp_path / "x.tar", shard, SHAPE, "uint8", verify=False)
    while not isinstance(held, np.memmap):
        held = held.obj if isinstance(held, memoryview) else held.base
    assert held.nbytes == shard.bytes


# the library leaves its stream for the garbage collector to close
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_plain_tar_and_webdataset_read_it(tmp_path: Path) -> None:
    written = samples(70)
    write_shard(tmp_path, "x.tar", written, 32)
    listed = subprocess.run(
        ["tar", "tf", tmp_path / "x.tar"], capture_output=True, text=True, check=True
    )
    assert listed.stdout.split() == ["000000.npy", "000001.npy", "000002.npy"]
    records = webdataset.WebDataset(str(tmp_path / "x.tar"), shardshuffle=False)
    blocks = [np.load(io.BytesIO(r["npy"]), allow_pickle=False) for r in records]
    np.testing.assert_array_equal(np.concatenate(blocks), written)


def test_bytes_depend_on_the_samples_alone(tmp_path: Path) -> None:
    one = write_shard(tmp_path, "a.tar", samples(70), 32)
    two = write_shard(tmp_path, "b.tar", samples(70), 32)
    assert one.sha256 == two.sha256


def test_missing(tmp_path: Path) -> None:
    shard = write_shard(tmp_path, "x.tar", samples(70), 32)
    (tmp_path / "x.tar").unlink()
    with pytest.raises(DataError, match=r"a shard is missing \| at: .*x\.tar"):
        read(tmp_path, shard)


def test_truncated(tmp_path: Path) -> None:
    shard = write_shard(tmp_path, "x.tar", samples(70), 32)
    data = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "x.tar").write_bytes(data[:-512])
    with pytest.raises(DataError, match="cut short or has grown.*expected: 10240 bytes"):
        read(tmp_path, shard, verify=False)


def test_flipped_byte(tmp_path: Path) -> None:
    shard = write_shard(tmp_path, "x.tar", samples(70), 32)
    data = bytearray((tmp_path / "x.tar").read_bytes())
    data[2000] ^= 1
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(DataError, match="a shard was changed.*sha256"):
        read(tmp_path, shard)


def test_a_pickle_is_refused_even_with_the_right_hash(tmp_path: Path) -> None:
    record = io.BytesIO()
    touching = [Touches(tmp_path / "ran")] * 3
    np.save(record, np.array(touching, dtype=object), allow_pickle=True)
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("000000.npy")
        info.size = len(record.getvalue())
        archive.addfile(info, io.BytesIO(record.getvalue()))
    good = write_shard(tmp_path, "good.tar", samples(3), 32)
    size = path.stat().st_size
    from sno_dist.runtime.artifact import sha256

    forged = Shard(**{**good.to_json(), "file": "x.tar", "bytes": size, "sha256": sha256(path)})
    with pytest.raises(DataError, match="a pickle, which is never loaded"):
        read(tmp_path, forged)
    assert not (tmp_path / "ran").exists()


def test_other_samples_than_the_manifest_says(tmp_path: Path) -> None:
    shard = write_shard(tmp_path, "x.tar", samples(70), 32)
    with pytest.raises(DataError, match=r"other samples .*expected: float32 \(24,\)"):
        map_shard(tmp_path / "x.tar", shard, (24,), "float32", verify=True)
