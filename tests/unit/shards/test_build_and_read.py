"""Building and reading: whole or not at all, resumable, local or remote, checked."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sno_dist.config.load import load_config
from sno_dist.errors import ArtifactError, DataError, Preempted
from sno_dist.runtime import preemption
from sno_dist.runtime.artifact import sha256
from sno_dist.shards.build import build_shards
from sno_dist.shards.manifest import open_manifest
from sno_dist.shards.reader import Reader
from sno_dist.shards.sources.factory import make_source
from sno_dist.shards.tar import map_shard
from tests.unit.shards.small import small_config


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("built")
    build_shards(small_config(root))
    return root


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built / "shards", tmp_path / "shards")
    return tmp_path


def test_every_sample_arrives(built: Path) -> None:
    config = small_config(built)
    manifest, source = open_manifest(config), make_source(config.shards.source, config.shards.split)
    assert len(manifest.split("seen")) == 70
    assert len(manifest.split("unseen")) == 30
    reader = Reader(manifest)
    for name in ("00", "37", "99"):
        entry = manifest.entry(name)
        for role in ("model", "judge", "reference"):
            np.testing.assert_array_equal(reader.all(entry, role), source.draw(name, role))
    index = np.array([69, 0, 33, 33])
    got = reader.take(manifest.entry("00"), "model", index)
    np.testing.assert_array_equal(got, source.draw("00", "model")[index])


def test_a_stopped_build_goes_on_to_the_same_bytes(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter(range(10**6))
    with monkeypatch.context() as patch:
        patch.setattr(preemption, "requested", lambda: next(asked) >= 40)
        with pytest.raises(Preempted, match="asked to stop while building shards"):
            build_shards(small_config(tmp_path))
    partial = tmp_path / ".shards.partial"
    kept = {path: path.stat().st_mtime_ns for path in partial.rglob("*.tar")}
    assert len(kept) == 40 * 3
    build_shards(small_config(tmp_path))
    for path, written in kept.items():
        assert (tmp_path / "shards" / path.relative_to(partial)).stat().st_mtime_ns == written
    names = [path.relative_to(built) for path in (built / "shards").rglob("*") if path.is_file()]
    for name in names:
        assert (tmp_path / name).read_bytes() == (built / name).read_bytes()


def test_several_shards_read_as_one(tmp_path: Path) -> None:
    config = small_config(tmp_path, "shards.shard=25", "shards.block=10")
    manifest = build_shards(config)
    entry = manifest.entry("42")
    assert [s.count for s in entry.roles["model"]] == [25, 25, 20]
    source = make_source(config.shards.source, config.shards.split)
    index = np.array([60, 3, 24, 25, 49, 50])
    got = Reader(manifest).take(entry, "model", index)
    np.testing.assert_array_equal(got, source.draw("42", "model")[index])


def test_out_of_range(built: Path) -> None:
    manifest = open_manifest(small_config(built))
    with pytest.raises(DataError, match="index out of range.*got: 70 .*below 70"):
        Reader(manifest).take(manifest.entries[0], "model", np.array([70]))


def test_the_same_command_finds_it_built(built: Path) -> None:
    before = (built / "shards/manifest.json").stat().st_mtime_ns
    build_shards(small_config(built))
    assert (built / "shards/manifest.json").stat().st_mtime_ns == before


def test_another_config_is_refused_by_name(built: Path) -> None:
    with pytest.raises(ArtifactError, match=r"or data.*shards\.source\.model: 70 -> 71"):
        build_shards(small_config(built, "shards.source.model=71"))


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("shards.source.model=71", r"shards\.source\.model: 70 -> 71"),
        ("shards.split.seed=5", r"shards\.split\.seed: 0 -> 5"),
        (
            "shards.source={kind: gaussian_mixture}",
            r"shards\.source\.kind: \w+ -> gaussian_mixture",
        ),
    ],
)
def test_a_later_stage_refuses_data_other_than_its_config_says(
    built: Path, override: str, key: str
) -> None:
    with pytest.raises(ArtifactError, match=key):
        open_manifest(small_config(built, override))


def test_a_config_that_says_nothing_of_the_data_takes_any(built: Path) -> None:
    manifest = open_manifest(load_config(None, [f"shards.path={built}/shards"]))
    assert manifest.digest == open_manifest(small_config(built)).digest


def test_an_interrupted_build_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sno_dist.shards import build

    real, calls = build.write_shard, []

    def failing(root: Path, file: str, samples: np.ndarray, block: int) -> object:
        calls.append(file)
        if len(calls) == 100:
            raise OSError(28, "No space left on device")
        return real(root, file, samples, block)

    monkeypatch.setattr(build, "write_shard", failing)
    with pytest.raises(ArtifactError, match="cannot be written .* got: No space left on device"):
        build_shards(small_config(tmp_path))
    assert not (tmp_path / "shards").exists()
    manifest = build_shards(small_config(tmp_path))
    # three shards a distribution: 33 whole distributions were kept, the 34th was begun
    assert len(calls) == 100 + 300 - 99
    assert len(manifest.entries) == 100


def test_a_missing_shard_is_seen_at_once(copy: Path) -> None:
    next((copy / "shards/seen/00").glob("model*")).unlink()
    with pytest.raises(ArtifactError, match="file of the artifact is missing.*seen/00/model"):
        open_manifest(small_config(copy))


def test_a_flipped_byte_is_seen_when_read(copy: Path) -> None:
    path = next((copy / "shards/seen/00").glob("model*"))
    data = bytearray(path.read_bytes())
    data[1000] ^= 255
    path.write_bytes(data)
    manifest = open_manifest(small_config(copy))
    with pytest.raises(DataError, match="a shard was changed.*build the shards again"):
        Reader(manifest).take(manifest.entry("00"), "model", np.arange(2))


def test_a_wrong_manifest(copy: Path) -> None:
    path = copy / "shards/manifest.json"
    value = json.loads(path.read_text())
    text = json.dumps({**value, "entries": [{"name": "x"}]}).encode()
    size = path.stat().st_size
    path.write_bytes(text.ljust(size))
    with pytest.raises(ArtifactError, match="manifest cannot be read.*KeyError"):
        open_manifest(small_config(copy))
    path.write_bytes(text)
    with pytest.raises(ArtifactError, match="wrong size"):
        open_manifest(small_config(copy))


def test_an_unwritable_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    config = small_config(tmp_path, f"shards.path={tmp_path}/file/shards")
    with pytest.raises(ArtifactError, match="cannot be written"):
        build_shards(config)


def test_bad_values_name_the_distribution(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    array = np.zeros((50, 3), np.float32)
    np.save(tmp_path / "data/good.npy", array)
    array[17, 1] = np.nan
    np.save(tmp_path / "data/bad.npy", array)
    overrides = [f"shards.path={tmp_path}/shards", "shards.source.kind=folder"]
    config = load_config(None, [*overrides, f"shards.source.path={tmp_path}/data"])
    with pytest.raises(DataError, match="finite"):
        build_shards(config)
    np.save(tmp_path / "data/bad.npy", array[:1] * 0)
    with pytest.raises(DataError, match="few|sample"):
        build_shards(config)


def test_shift_and_scale_are_each_entry_s_whatever_its_unit(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":
        columns = (
            5e-7 + 2e-8 * rng.normal(size=200),
            np.full(200, 7e-8),
            1e6 + rng.normal(size=200),
            1e7 + 2 * rng.normal(size=200).round(),  # float32 has every integer here
        )
        np.save(tmp_path / f"data/{name}.npy", np.stack(columns, 1).astype(np.float32))
    overrides = [f"shards.path={tmp_path}/shards", "shards.source.kind=folder"]
    manifest = build_shards(load_config(None, [*overrides, f"shards.source.path={tmp_path}/data"]))
    np.testing.assert_allclose(manifest.shift, (5e-7, 7e-8, 1e6, 1e7), rtol=0.02)
    # a constant entry is left unscaled
    np.testing.assert_allclose(manifest.scale, (2e-8, 1, 1, 2 * np.sqrt(13 / 12)), rtol=0.1)


def test_samples_in_two_roles_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    for name in "abc":
        np.save(tmp_path / f"data/{name}.npy", np.arange(60, dtype=np.float32)[:, None] % 5)
    overrides = [f"shards.path={tmp_path}/shards", "shards.source.kind=folder"]
    build_shards(load_config(None, [*overrides, f"shards.source.path={tmp_path}/data"]))
    assert "5 distinct samples are in two roles" in capsys.readouterr().err


@pytest.fixture
def server(copy: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    handler = partial(Quiet, directory=str(copy))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/shards"
        httpd.shutdown()


def test_shards_that_were_read_last_stay_open(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def told(path: Path, *rest: Any, **settings: Any) -> np.ndarray:
        opened.append(path.parent.name)
        return map_shard(path, *rest, **settings)

    monkeypatch.setattr("sno_dist.shards.reader.OPEN", 2)
    monkeypatch.setattr("sno_dist.shards.reader.map_shard", told)
    manifest = open_manifest(small_config(built))
    reader = Reader(manifest)
    for name in ("00", "37", "00", "42", "00", "37"):
        reader.all(manifest.entry(name), "model")
    assert opened == ["00", "37", "42", "37"]


def test_a_hash_is_compared_once_unless_the_shard_is_written_again(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def told(path: Path) -> str:
        hashed.append(path.parent.name)
        return sha256(path)

    monkeypatch.setattr("sno_dist.shards.reader.OPEN", 1)
    monkeypatch.setattr("sno_dist.shards.tar.sha256", told)
    manifest = open_manifest(small_config(copy))
    reader = Reader(manifest)
    for name in ("00", "37", "00", "37"):
        reader.all(manifest.entry(name), "model")
    Reader(manifest).all(manifest.entry("00"), "model")
    assert hashed == ["00", "37"]
    path = next((copy / "shards/seen/00").glob("model*"))
    written = path.stat().st_mtime_ns
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(written, written + 1))
    with pytest.raises(DataError, match="a shard was changed"):
        Reader(manifest).all(manifest.entry("00"), "model")
    path.write_bytes(b"")
    with pytest.raises(DataError, match="cut short"):
        reader.all(manifest.entry("00"), "model")


def test_a_shard_that_is_cut_while_it_is_open(copy: Path) -> None:
    manifest = open_manifest(small_config(copy))
    reader = Reader(manifest)
    before = reader.all(manifest.entry("00"), "model")
    path = next((copy / "shards/seen/00").glob("model*"))
    whole = path.read_bytes()
    with path.open("r+b") as stream:
        stream.truncate(len(whole) // 2)
    with pytest.raises(DataError, match=r"cut short .*seen/00/model.* expected: \d+ bytes"):
        reader.all(manifest.entry("00"), "model")
    path.write_bytes(whole)
    np.testing.assert_array_equal(reader.all(manifest.entry("00"), "model"), before)


def test_over_http(server: str, copy: Path, built: Path) -> None:
    cache = f"shards.cache={copy}/cache"
    remote = open_manifest(small_config(copy, f"shards.path={server}", cache))
    local = open_manifest(small_config(built))
    reader = Reader(remote, cache=str(copy / "cache"))
    got = reader.all(remote.entry("37"), "model")
    np.testing.assert_array_equal(got, Reader(local).all(local.entry("37"), "model"))
    assert len(list((copy / "cache").rglob("*.tar"))) == 1


def test_a_cache_that_was_changed_is_fetched_anew(server: str, copy: Path) -> None:
    cache = copy / "cache"
    remote = open_manifest(small_config(copy, f"shards.path={server}", f"shards.cache={cache}"))
    whole = Reader(remote, cache=str(cache)).all(remote.entry("37"), "model")
    (path,) = cache.rglob("*.tar")
    kept = path.read_bytes()
    damaged = bytearray(kept)
    damaged[-2000] ^= 1
    written = path.stat().st_mtime_ns
    path.write_bytes(damaged)
    os.utime(path, ns=(written, written + 1))
    again = Reader(remote, cache=str(cache)).all(remote.entry("37"), "model")
    np.testing.assert_array_equal(again, whole)
    assert path.read_bytes() == kept


def test_a_cache_that_cannot_be_written_is_told(server: str, copy: Path) -> None:
    (copy / "file").touch()
    remote = open_manifest(small_config(copy, f"shards.path={server}"))
    reader = Reader(remote, cache=f"{copy}/file/cache")
    with pytest.raises(DataError, match=r"cannot be kept.*Not a directory.*set shards\.cache"):
        reader.all(remote.entry("37"), "model")


def test_an_address_whose_library_is_not_installed_is_told(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    config = small_config(copy, "shards.path=s3://bucket/shards")
    with pytest.raises(ArtifactError, match=r"no complete shards.*pip install 'sno-dist\[s3\]'"):
        open_manifest(config)


def test_what_is_fetched_has_a_name_of_its_own_until_it_is_whole(
    server: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sno_dist.shards import remote

    fetch, parts = remote.fetch, []
    monkeypatch.setattr(remote, "fetch", lambda url, part: (parts.append(part), fetch(url, part)))
    for _ in range(2):  # of one process, as in two containers that number theirs alike
        manifest = open_manifest(small_config(copy, f"shards.path={server}"))
        parts.clear()
        Reader(manifest, cache=str(copy / "cache")).all(manifest.entry("37"), "model")
        shutil.rmtree(copy / "cache")
    assert len(set(parts)) == len(parts)


def test_a_damaged_remote_shard_is_named(
    server: str, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sno_dist.shards.reader.time.sleep", lambda _: None)
    path = next((copy / "shards/seen/00").glob("model*"))
    path.write_bytes(path.read_bytes()[:-100])
    manifest = open_manifest(small_config(copy, f"shards.path={server}"))
    reader = Reader(manifest, cache=str(copy / "cache"))
    with pytest.raises(DataError, match=r"could not be fetched whole.*seen/00/model.*4 times"):
        reader.all(manifest.entry("00"), "model")


def test_a_server_that_falls_silent_is_given_up(
    copy: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = open_manifest(small_config(copy, f"shards.path={server}"))
    monkeypatch.setattr("sno_dist.shards.reader.time.sleep", lambda _: None)
    monkeypatch.setattr("sno_dist.shards.remote.SILENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes calls, and says nothing
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/shards"
        reader = Reader(replace(manifest, root=address), cache=str(copy / "cache"))
        with pytest.raises(DataError, match=r"could not be fetched whole.*nothing came.*4 times"):
            reader.all(manifest.entry("00"), "model")


@pytest.mark.parametrize(
    "text", ['{"message": "not found"}', "[]", "null", '"ok"', '{"files": []}', '{"files": {}}']
)
def test_an_answer_that_lists_no_shards_is_told(copy: Path, server: str, text: str) -> None:
    (copy / "shards/COMPLETE").write_text(text)
    message = r"no complete shards at this address \| at: http.*COMPLETE \| got: other JSON"
    with pytest.raises(ArtifactError, match=message):
        open_manifest(small_config(copy, f"shards.path={server}"))


def test_no_such_address(tmp_path: Path) -> None:
    config = small_config(tmp_path, "shards.path=http://127.0.0.1:9/none")
    with pytest.raises(ArtifactError, match="no complete shards at this address"):
        open_manifest(config)
