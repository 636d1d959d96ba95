"""Shards are of the data that were read: changed data are told, copied or absent ones are not."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sno_dist.config.load import load_config
from sno_dist.config.schema import Config
from sno_dist.errors import ArtifactError, DataError, Preempted
from sno_dist.runtime import preemption
from sno_dist.runtime.artifact import COMPLETE
from sno_dist.shards.build import build_shards
from sno_dist.shards.manifest import Manifest
from sno_dist.shards.originals import CONTENTS, LISTING

FORMS = ("arrays", "images", "dealt", "table")


def config_of(root: Path, form: str = "arrays") -> Config:
    source = {"kind": "folder", "path": f"{root}/data"}
    if form == "table":
        source |= {"path": f"{root}/data/t.csv", "group": "g"}
    return load_config(
        None, [f"shards.path={root}/shards", f"shards.source={json.dumps(source)}", "name=mine"]
    )


def write(root: Path, form: str, name: str, value: int) -> None:
    """One distribution, of the same size in bytes whatever its value below 10."""
    data, rows = root / "data", np.arange(12, dtype=np.float32).reshape(6, 2) + value
    data.mkdir(exist_ok=True)
    match form:
        case "arrays":
            np.save(data / f"{name}.npy", rows)
        case "images":
            picture(data / name, 6, value)
        case "dealt":
            for role in ("model", "judge", "reference"):
                picture(data / name / role, 2, value)
        case "table":
            text = "".join(f"{name},{value},{row}\n" for row in range(6))
            with (data / "t.csv").open("a") as stream:
                stream.write(("" if stream.tell() else "g,x,y\n") + text)


def picture(folder: Path, count: int, value: int) -> None:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.fromarray(np.full((2, 2), value, np.uint8)).save(folder / f"{index}.bmp")


def last_file(root: Path) -> Path:
    return sorted(path for path in (root / "data").rglob("*") if path.is_file())[-1]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def built(tmp_path: Path, form: str) -> Manifest:
    for value, name in enumerate("abc"):
        write(tmp_path, form, name, value)
    return build_shards(config_of(tmp_path, form))


def test_a_distribution_that_came_later_is_told(tmp_path: Path, form: str, built: Manifest) -> None:
    assert build_shards(config_of(tmp_path, form)) == built
    write(tmp_path, form, "d", 7)
    message = r"shards here were.*shards\.source\.files: \d+ of \d+ bytes.* -> \d+ of.*delete this"
    with pytest.raises(ArtifactError, match=message):
        build_shards(config_of(tmp_path, form))


@pytest.mark.usefixtures("built")
def test_a_file_that_was_mended_to_the_same_size_is_told(tmp_path: Path, form: str) -> None:
    path = last_file(tmp_path)
    data, before = path.read_bytes(), path.stat().st_mtime_ns
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(path, ns=(before, before + 1))
    with pytest.raises(ArtifactError, match=r"files: (\d+ of \d+ bytes).* -> \1"):
        build_shards(config_of(tmp_path, form))


@pytest.mark.parametrize("form", ["arrays", "images", "dealt"], indirect=True)
@pytest.mark.usefixtures("built")
def test_a_file_that_was_removed_is_told(tmp_path: Path, form: str) -> None:
    last_file(tmp_path).unlink()
    with pytest.raises(ArtifactError, match=r"shards\.source\.files"):
        build_shards(config_of(tmp_path, form))


def test_a_copy_that_keeps_its_times_is_the_same_data(
    tmp_path: Path, form: str, built: Manifest
) -> None:
    (tmp_path / "data").rename(tmp_path / "old")
    shutil.copytree(tmp_path / "old", tmp_path / "data")
    assert build_shards(config_of(tmp_path, form)) == built


def test_files_that_are_not_read_change_nothing(tmp_path: Path, form: str, built: Manifest) -> None:
    for folder, *_ in os.walk(tmp_path / "data"):
        (Path(folder) / ".DS_Store").touch()
    (tmp_path / "data/notes.txt").touch()
    assert build_shards(config_of(tmp_path, form)) == built


def test_shards_serve_where_the_data_are_not(tmp_path: Path, form: str, built: Manifest) -> None:
    shutil.rmtree(tmp_path / "data")
    assert build_shards(config_of(tmp_path, form)) == built
    # the place that another disk is mounted at
    (tmp_path / "data").mkdir()
    assert build_shards(config_of(tmp_path, form)) == built


@pytest.mark.parametrize("form", ["arrays"], indirect=True)
def test_shards_serve_who_may_not_read_the_data(
    tmp_path: Path, built: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(folder: Path) -> list[Path]:
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", closed)
    assert build_shards(config_of(tmp_path)) == built


@pytest.mark.parametrize("form", ["arrays"], indirect=True)
def test_shards_that_tell_nothing_of_their_files_serve_as_before(
    tmp_path: Path, built: Manifest
) -> None:
    complete = tmp_path / "shards" / COMPLETE
    value = json.loads(complete.read_text())
    for key in (CONTENTS, LISTING):
        del value["inputs"][key]
    complete.write_text(json.dumps(value))
    assert build_shards(config_of(tmp_path)) == built


@pytest.mark.parametrize("form", ["images"], indirect=True)
@pytest.mark.usefixtures("built")
def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    (tmp_path / "data/a/9.bmp").symlink_to(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"cannot be listed.*data/a/9\.bmp.*No such file"):
        build_shards(config_of(tmp_path, "images"))


@pytest.mark.parametrize("form", ["arrays"], indirect=True)
def test_what_was_written_again_is_the_same_data_if_its_contents_are(
    tmp_path: Path, built: Manifest
) -> None:
    path = last_file(tmp_path)
    os.utime(path, (1, 1))
    assert build_shards(config_of(tmp_path)) == built
    rows = np.load(path)
    np.save(path, rows)
    assert build_shards(config_of(tmp_path)) == built
    np.save(path, rows[::-1])
    with pytest.raises(ArtifactError, match=r"shards\.source\.files"):
        build_shards(config_of(tmp_path))


def parts(root: Path) -> list[Path]:
    return sorted((root / ".shards.partial").rglob("model*.tar"))


def stop_build(root: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(preemption, "requested", lambda: len(parts(root)) >= after)
        with pytest.raises(Preempted, match="asked to stop while building shards"):
            build_shards(config_of(root))
    assert len(parts(root)) == after


def test_a_stopped_build_goes_on_when_the_same_data_were_copied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        write(tmp_path, "arrays", name, 0)
    stop_build(tmp_path, monkeypatch, after=2)
    done = {path.parts[-3:]: path.stat().st_mtime_ns for path in parts(tmp_path)}
    for path in (tmp_path / "data").iterdir():
        os.utime(path, (1, 1))
    build_shards(config_of(tmp_path))
    for name, written in done.items():
        assert tmp_path.joinpath("shards", *name).stat().st_mtime_ns == written


def test_hashing_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "arrays", "a", 0)
    monkeypatch.setattr(preemption, "requested", lambda: True)
    with pytest.raises(Preempted, match="asked to stop while hashing the source's files"):
        build_shards(config_of(tmp_path))


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path, "images", name, 0)
    (tmp_path / "data/b/x.png").symlink_to("/proc/self/mem")
    told = r"of the source cannot be read \| at: .*/b/x\.png \| got: Input/output error"
    with pytest.raises(DataError, match=told):
        build_shards(config_of(tmp_path, "images"))


def test_a_folder_inside_a_distribution_is_told_by_the_build(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path, "images", f"{name}/x/y", 0)
    with pytest.raises(DataError, match="has a folder inside"):
        build_shards(config_of(tmp_path, "images"))


def test_data_are_not_replaced_by_their_shards(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path, "images", name, 0)
    before = sorted((tmp_path / "data").rglob("*"))
    (tmp_path / "shards").symlink_to(tmp_path / "data")
    with pytest.raises(ArtifactError, match=r"no stage wrote it \| at: .*data \| got: a, b, c"):
        build_shards(config_of(tmp_path, "images"))
    assert sorted((tmp_path / "data").rglob("*")) == before


def test_a_stopped_build_does_not_mix_old_and_new_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        write(tmp_path, "arrays", name, 0)
    stop_build(tmp_path, monkeypatch, after=2)
    for path in (tmp_path / "data").iterdir():
        np.save(path, np.load(path) + 5)
        os.utime(path, (1, 1))
    told = r"shards here were made of other .* at: .*\.shards\.partial .*shards\.source\.files: "
    with pytest.raises(ArtifactError, match=told):
        build_shards(config_of(tmp_path))
    assert len(parts(tmp_path)) == 2
    shutil.rmtree(tmp_path / ".shards.partial")
    mixed = build_shards(config_of(tmp_path))
    shutil.rmtree(tmp_path / "shards")
    assert mixed.digest == build_shards(config_of(tmp_path)).digest


def test_a_build_that_a_bad_file_ended_goes_on_when_it_is_mended(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path, "arrays", name, 0)
    whole = np.load(tmp_path / "data/c.npy")
    np.save(tmp_path / "data/c.npy", np.full_like(whole, np.nan))
    with pytest.raises(DataError):
        build_shards(config_of(tmp_path))
    np.save(tmp_path / "data/c.npy", whole)
    assert [entry.name for entry in build_shards(config_of(tmp_path)).entries] == ["a", "b", "c"]
