from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import struct
import threading
from collections.abc import Iterator
from functools import partial
from http.server import HTTPServer, SimpleHTTPRequestHandler
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from sno_dist.config.load import load_config
from sno_dist.config.schema import MnistPairs, Split
from sno_dist.errors import ArtifactError, DataError
from sno_dist.shards.build import build_shards
from sno_dist.shards.sources.factory import make_source
from sno_dist.shards.sources.fetch import cache_folder, fetch
from sno_dist.shards.sources.idx import read_idx
from sno_dist.shards.sources.pairs import PairSource


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """scikit-learn's digits, enlarged, in MNIST's format: 1,400 to train on and 397 to test."""
    digits = load_digits()
    images = np.zeros((1797, 28, 28), np.uint8)
    images[:, 2:26, 2:26] = np.kron(digits.images, np.ones((3, 3))) * 255 / 16
    labels = digits.target.astype(np.uint8)
    path = tmp_path_factory.mktemp("mnist")
    for name, rows in (("train", slice(1400)), ("t10k", slice(1400, None))):
        (path / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images[rows]), 1))
        (path / f"{name}-labels-idx1-ubyte").write_bytes(idx(labels[rows]))
    return path


@pytest.fixture(scope="module")
def source(folder: Path) -> PairSource:
    config = MnistPairs(kind="mnist_pairs", path=str(folder), model=60, judge=30, reference=20)
    made = make_source(config, Split())
    assert isinstance(made, PairSource)
    return made


def test_population(source: PairSource) -> None:
    assert source.shape == (1, 32, 32)
    assert source.draw("12", "model").shape == (60, 1, 32, 32)
    assert source.draw("12", "judge").shape == (30, 1, 32, 32)
    assert [d.split for d in source.distributions()].count("unseen") == 30


def test_pools_keep_to_their_half_of_mnist(source: PairSource, folder: Path) -> None:
    halves = {
        name: {g.tobytes() for g in read_idx(folder / f"{name}-images-idx3-ubyte.gz", 3)}
        for name in ("train", "t10k")
    }
    origin = {"seen": "train", "judge": "train", "unseen": "t10k", "reference": "t10k"}
    for pool, half in origin.items():
        pixels = {glyph.tobytes() for digit in source.glyphs[pool] for glyph in digit}
        assert pixels <= halves[half], pool
    audit = source.audit()
    assert audit["shared_total"] == 0
    assert abs(audit["glyphs"]["seen"] - 0.5 * 1400) <= 10
    assert abs(audit["glyphs"]["unseen"] - 0.5 * 397) <= 10
    assert sum(audit["glyphs"].values()) == 1797


def test_a_file_that_changed_is_told(folder: Path, tmp_path: Path) -> None:
    data = shutil.copytree(folder, tmp_path / "mnist")
    source = {"kind": "mnist_pairs", "path": str(data), "model": 4, "judge": 1, "reference": 1}
    config = load_config(
        None, [f"shards.path={tmp_path}/shards", f"shards.source={json.dumps(source)}"]
    )
    built = build_shards(config)
    # the plain file beside it is the one that is read
    (data / "t10k-labels-idx1-ubyte.gz").touch()
    assert build_shards(config) == built
    labels = data / "t10k-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\0")
    with pytest.raises(ArtifactError, match=r"shards\.source\.files: 4 of .* -> 4 of"):
        build_shards(config)
    shutil.rmtree(data)
    assert build_shards(config) == built


def test_an_image_is_two_glyphs_resized_as_torch_does(source: PairSource) -> None:
    name = next(d.name for d in source.distributions() if d.split == "unseen")
    left, right = (source.glyphs["unseen"][int(digit)] for digit in name)
    every = np.concatenate(
        [np.repeat(left, len(right), axis=0), np.tile(right, (len(left), 1, 1))], axis=2
    )
    resized = torch.nn.functional.interpolate(
        torch.from_numpy(every).double()[:, None], size=(32, 32), mode="bilinear", antialias=True
    ).numpy()
    used = set()
    for image in source.draw(name, "model"):
        distance = np.abs(resized - image).max(axis=(1, 2, 3))
        assert distance.min() <= 0.501
        used.add(int(distance.argmin()))
    assert len(used) == 60


def test_idx_is_read_plain_and_compressed(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    (tmp_path / "a").write_bytes(idx(array))
    (tmp_path / "a.gz").write_bytes(gzip.compress(idx(array)))
    assert (read_idx(tmp_path / "a", 3) == array).all()
    assert (read_idx(tmp_path / "a.gz", 3) == array).all()


GOOD = idx(np.zeros((2, 3, 4), np.uint8))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x00\x00\x0d\x03" + GOOD[4:], r"not an IDX file.*got: magic number 00000d03.*00000803"),
        (idx(np.zeros(5, np.uint8)), r"got: magic number 00000801 .*expected: 00000803"),
        (gzip.compress(GOOD, mtime=0), r"magic number 1f8b.*a \.gz file must end in \.gz"),
        (b"", r"none, the file is empty"),
        (GOOD[:-1], r"is truncated.*got: 39 bytes.*expected: 40 bytes for sizes \(2, 3, 4\)"),
        (GOOD[:9], r"is truncated.*got: 9 bytes.*expected: at least 16"),
        (GOOD + b"\x00", r"is too long.*got: 41 bytes.*expected: 40 bytes"),
    ],
)
def test_damaged_idx_files(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_idx(tmp_path / "file", 3)


def test_damaged_gzip(tmp_path: Path) -> None:
    for data in (GOOD, gzip.compress(GOOD)[:-9]):
        (tmp_path / "file.gz").write_bytes(data)
        with pytest.raises(DataError, match=r"cannot read an IDX file \| at: .*file\.gz"):
            read_idx(tmp_path / "file.gz", 3)


def test_missing_and_foreign_files(tmp_path: Path) -> None:
    config = MnistPairs(kind="mnist_pairs", path=str(tmp_path))
    with pytest.raises(DataError, match=r"missing.*expected: train-images-idx3-ubyte or .*\.gz"):
        make_source(config, Split())
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((3, 32, 32), np.uint8)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(3, np.uint8)))
    with pytest.raises(DataError, match=r"not MNIST digits.*got: images \(3, 32, 32\), labels"):
        make_source(config, Split())


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A real server on this machine, and the folder that it serves."""
    served = tmp_path / "served"
    served.mkdir()
    with HTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", served
        server.shutdown()
        thread.join()


def test_fetch_verifies_keeps_and_mends(tmp_path: Path, mirror: tuple[str, Path]) -> None:
    url, served = mirror
    md5 = hashlib.md5(GOOD).hexdigest()
    (served / "digits.gz").write_bytes(gzip.compress(GOOD))
    cache = tmp_path / "cache" / "mnist"
    # The first mirror does not have the file; the second does.
    path = fetch("digits", md5, (f"{url}nowhere/", url), cache)
    assert path.read_bytes() == GOOD
    assert [p.name for p in cache.iterdir()] == ["digits"]
    (served / "digits.gz").unlink()
    assert fetch("digits", md5, (url,), cache) == path
    path.write_bytes(GOOD[:-1])
    with pytest.raises(DataError, match=r"cannot fetch digits.*404.*set shards\.source\.path"):
        fetch("digits", md5, (url,), cache)
    (served / "digits.gz").write_bytes(gzip.compress(GOOD))
    assert fetch("digits", md5, (url,), cache).read_bytes() == GOOD


def test_fetch_refuses_other_bytes(tmp_path: Path, mirror: tuple[str, Path]) -> None:
    url, served = mirror
    md5 = hashlib.md5(GOOD).hexdigest()
    for data in (gzip.compress(GOOD + b"x"), b"<html>sign in</html>", gzip.compress(GOOD)[:-9]):
        (served / "digits.gz").write_bytes(data)
        with pytest.raises(DataError, match=rf"cannot fetch digits.*expected: md5 {md5}"):
            fetch("digits", md5, (url,), tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot keep fetched data.*XDG_CACHE_HOME"):
        fetch("digits", "", (), tmp_path / "file" / "mnist")


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "sno_dist"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "sno_dist"
