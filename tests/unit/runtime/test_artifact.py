from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from sno_dist.errors import ArtifactError, ConfigError, DataError
from sno_dist.runtime.artifact import (
    Artifact,
    digest,
    is_complete,
    open_artifact,
    sha256,
    write_json,
)
from sno_dist.runtime.writing import writing

INPUTS = {"seed": 1, "shards": "abc"}

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from sno_dist.runtime import writing as module
from sno_dist.runtime.writing import writing

def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)

path, where = Path(sys.argv[1]), sys.argv[2]
if where != "filling":
    setattr(module, where, die)
with writing(path, "thing", {"seed": 2}) as folder:
    (folder / "data").write_bytes(b"new" * 1000)
    if where == "filling":
        die()
"""


def make(path: Path, content: bytes = b"0123456789") -> Artifact:
    with writing(path, "thing", INPUTS) as folder:
        (folder / "data").write_bytes(content)
        (folder / "sub").mkdir()
        (folder / "sub/more").write_text("more")
    return open_artifact(path, "thing")


def interrupted(path: Path, by: BaseException) -> None:
    def attempt() -> None:
        with writing(path, "thing", INPUTS, resume=True) as folder:
            (folder / "part").write_text("done so far")
            raise by

    with pytest.raises(type(by)):
        attempt()


def killed(path: Path, where: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, path, where], check=False)
    assert done.returncode == -signal.SIGKILL


def test_what_is_written_is_opened_with_its_inputs_sizes_and_hashes(tmp_path: Path) -> None:
    made = make(tmp_path / "a")
    assert made.inputs == INPUTS
    assert {name: entry["bytes"] for name, entry in made.files.items()} == {
        "data": 10,
        "sub/more": 4,
    }
    assert made.files["data"]["sha256"] == sha256(tmp_path / "a/data")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_the_digest_follows_the_content_alone(tmp_path: Path) -> None:
    one, same, other = (
        make(tmp_path / name, content) for name, content in (("a", b"x"), ("b", b"x"), ("c", b"y"))
    )
    assert one.digest == same.digest != other.digest


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


@pytest.mark.parametrize("where", ["filling", "_hashed", "_seal", "_replace"])
def test_a_killed_writer_leaves_nothing_to_read(tmp_path: Path, where: str) -> None:
    killed(tmp_path / "a", where)
    assert not is_complete(tmp_path / "a")
    with pytest.raises(ArtifactError, match=r"no complete thing artifact"):
        open_artifact(tmp_path / "a", "thing")


def test_a_killed_writer_leaves_the_old_artifact_whole(tmp_path: Path) -> None:
    old = make(tmp_path / "a")
    killed(tmp_path / "a", "_replace")
    assert open_artifact(tmp_path / "a", "thing") == old


def test_a_second_attempt_succeeds_after_a_kill(tmp_path: Path) -> None:
    killed(tmp_path / "a", "filling")
    assert make(tmp_path / "a").inputs == INPUTS
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_the_same_inputs_resume_an_attempt(tmp_path: Path) -> None:
    interrupted(tmp_path / "a", KeyboardInterrupt())
    with writing(tmp_path / "a", "thing", INPUTS, resume=True) as folder:
        assert (folder / "part").exists()


def test_other_inputs_do_not_drop_an_attempt(tmp_path: Path) -> None:
    interrupted(tmp_path / "a", KeyboardInterrupt())
    told = r"thing here was made of .* at: .*\.a\.partial \| got: seed: 1 -> 2"
    with (
        pytest.raises(ArtifactError, match=told),
        writing(tmp_path / "a", "thing", INPUTS | {"seed": 2}, resume=True),
    ):
        pass
    with writing(tmp_path / "a", "thing", INPUTS, resume=True) as folder:
        assert (folder / "part").exists()


@pytest.mark.parametrize("refused", [DataError("a bad image"), ConfigError("too wide")])
def test_what_was_refused_can_be_mended_in_the_same_folder(
    tmp_path: Path, refused: Exception
) -> None:
    interrupted(tmp_path / "a", refused)
    with writing(tmp_path / "a", "thing", INPUTS | {"seed": 2}, resume=True) as folder:
        assert not (folder / "part").exists()


def test_an_attempt_that_went_on_is_not_a_refused_one(tmp_path: Path) -> None:
    interrupted(tmp_path / "a", DataError("a bad image"))
    interrupted(tmp_path / "a", KeyboardInterrupt())
    with (
        pytest.raises(ArtifactError, match="seed: 1 -> 2"),
        writing(tmp_path / "a", "thing", INPUTS | {"seed": 2}, resume=True),
    ):
        pass


def test_what_a_kill_left_half_cleared_is_not_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupted(tmp_path / "a", DataError("a bad image"))
    (tmp_path / ".a.partial/records").mkdir()

    def killed_now(_: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", killed_now)
        with (
            pytest.raises(KeyboardInterrupt),
            writing(tmp_path / "a", "thing", INPUTS | {"seed": 2}, resume=True),
        ):
            pass
    with writing(tmp_path / "a", "thing", INPUTS, resume=True) as folder:
        assert not (folder / "records").exists()


def test_files_are_as_readable_as_the_user_has_it(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        with writing(tmp_path / "a", "thing", INPUTS) as folder:
            save_file({"x": np.zeros(1)}, folder / "data")
    finally:
        os.umask(mask)
    assert (tmp_path / "a/data").stat().st_mode & 0o777 == 0o640


def test_nothing_is_resumed_unless_asked(tmp_path: Path) -> None:
    interrupted(tmp_path / "a", KeyboardInterrupt())
    with writing(tmp_path / "a", "thing", INPUTS) as folder:
        assert not (folder / "part").exists()


def refusal(path: Path, kind: str = "thing", *, verify: bool = True) -> str:
    with pytest.raises(ArtifactError) as caught:
        open_artifact(path, kind, verify=verify)
    assert caught.value.exit_code == 4
    return str(caught.value)


def test_an_absent_folder_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a"
    assert refusal(path) == (
        f"no complete thing artifact | at: {path} | got: nothing | "
        "do: run the stage that writes it; the same command resumes"
    )


def test_a_folder_without_complete_is_told(tmp_path: Path) -> None:
    assert "got: a folder without COMPLETE" in refusal(tmp_path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": 1}'])
def test_a_complete_that_cannot_be_read_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "COMPLETE").write_text(text)
    with pytest.raises(ArtifactError, match=r"COMPLETE cannot be read.*delete the folder"):
        open_artifact(tmp_path, "things")


def test_another_kind_is_told(tmp_path: Path) -> None:
    make(tmp_path / "a")
    assert refusal(tmp_path / "a", "other").endswith("got: thing | expected: other")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    make(tmp_path / "a")
    (tmp_path / "a/sub/more").unlink()
    assert refusal(tmp_path / "a").startswith(
        f"a file of the artifact is missing | at: {tmp_path / 'a/sub/more'}"
    )


def test_a_cut_file_is_told_without_hashing(tmp_path: Path) -> None:
    make(tmp_path / "a")
    (tmp_path / "a/data").write_bytes(b"012")
    message = refusal(tmp_path / "a", verify=False)
    assert message.startswith("a file of the artifact has the wrong size")
    assert "got: 3 bytes | expected: 10 bytes" in message


def test_a_flipped_byte_is_told_where_hashes_are_verified(tmp_path: Path) -> None:
    make(tmp_path / "a")
    (tmp_path / "a/data").write_bytes(b"0123456780")
    assert refusal(tmp_path / "a").startswith("a file of the artifact is damaged")
    assert open_artifact(tmp_path / "a", "thing", verify=False).kind == "thing"


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with (
        pytest.raises(ArtifactError, match=r"^the folder cannot be written .* do: choose another"),
        writing(tmp_path / "file/a", "thing", INPUTS),
    ):
        pass


def published(path: Path) -> None:
    with writing(path, "thing", INPUTS) as folder:
        (folder / "data").write_text("new")


@pytest.mark.parametrize(
    ("place", "told"),
    [
        (
            "photos",
            r"no stage wrote it \| at: .*photos \| got: a\.png, b\.png, c\.png and 1 more",
        ),
        ("photos/a.png", r"at: .*a\.png \| got: a file \|"),
        (".", r"got: photos \| .*a complete artifact, an empty folder or nothing"),
        ("/proc", r"at: /proc \| got: a mounted disk.*name a folder in it"),
    ],
)
def test_what_no_stage_wrote_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for name in "abcd":
        (tmp_path / f"photos/{name}.png").touch()
    with pytest.raises(ArtifactError, match=told):
        published(Path(place))
    assert sorted(path.name for path in tmp_path.rglob("*")) == [
        *(f"{name}.png" for name in "abcd"),
        "photos",
    ]


def test_what_came_while_an_artifact_was_written_is_not_replaced(tmp_path: Path) -> None:
    def written() -> None:
        with writing(tmp_path / "a", "thing", INPUTS, resume=True) as folder:
            (folder / "data").write_text("new")
            (tmp_path / "a").mkdir()
            (tmp_path / "a/notes").write_text("mine")

    with pytest.raises(ArtifactError, match=r"no stage wrote it .*got: notes"):
        written()
    assert (tmp_path / "a/notes").read_text() == "mine"
    assert (tmp_path / ".a.partial/data").read_text() == "new"


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed(tmp_path: Path, there: bool) -> None:
    (tmp_path / "disk").mkdir()
    if there:
        (tmp_path / "disk/a").mkdir()
    (tmp_path / "a").symlink_to(tmp_path / "disk/a")
    published(tmp_path / "a")
    assert (tmp_path / "a").is_symlink()
    assert open_artifact(tmp_path / "a", "thing").inputs == INPUTS
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "disk"]


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert json.loads(path.read_text()) == {"a": 1}
