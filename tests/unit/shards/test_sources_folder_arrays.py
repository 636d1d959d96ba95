from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from sno_dist.config.schema import Folder, Split
from sno_dist.errors import DataError
from sno_dist.shards.sources.factory import make_source
from sno_dist.shards.sources.folder import FolderSource
from tests.unit.shards.small import Touches


def make(path: Path, **settings: object) -> FolderSource:
    source = make_source(Folder(kind="folder", path=str(path), **settings), Split())
    assert isinstance(source, FolderSource)
    return source


def rows(source: FolderSource, name: str) -> set[bytes]:
    return {row.tobytes() for role in source.roles for row in source.draw(name, role)}


def test_ragged_npy_vectors(tmp_path: Path) -> None:
    given = {"a": np.arange(30.0), "b": np.arange(300, 315), "c": np.arange(12, dtype=np.float16)}
    for name, values in given.items():
        np.save(tmp_path / f"{name}.npy", values.reshape(-1, 3))
    source = make(tmp_path)
    assert (source.domain, source.shape) == ("vector", (3,))
    assert [d.name for d in source.distributions()] == ["a", "b", "c"]
    for name, values in given.items():
        drawn = source.draw(name, "model")
        assert drawn.dtype == np.float32
        assert rows(source, name) == {v.tobytes() for v in values.reshape(-1, 3).astype("f4")}


def test_npz_images_grey_and_colour(tmp_path: Path) -> None:
    grey = (load_digits().images[:20] * 15.9).astype(np.uint8)
    colour = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), dtype=np.uint8)
    np.savez_compressed(tmp_path / "x.npz", grey=grey, colour=colour)
    source = make(tmp_path)
    assert (source.domain, source.shape) == ("image", (1, 8, 8))
    assert source.roles == ("model", "reference", "judge")
    assert rows(source, "grey") == {image.tobytes() for image in grey}
    by_pil = {np.asarray(Image.fromarray(i).convert("L")).tobytes() for i in colour}
    assert rows(source, "colour") == by_pil
    source = make(tmp_path, mode="RGB")
    assert source.shape == (3, 8, 8)
    assert rows(source, "colour") == {i.transpose(2, 0, 1).tobytes() for i in colour}
    assert rows(source, "grey") == {np.stack([i] * 3).tobytes() for i in grey}


def test_images_of_different_sizes_are_resized(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((9, 6, 4), 7, np.uint8))
    np.save(tmp_path / "b.npy", np.full((9, 12, 10, 1), 9, np.uint8))
    source = make(tmp_path)
    assert source.shape == (1, 6, 4)
    assert (source.draw("b", "model") == np.full((1, 6, 4), 9)).all()
    assert make(tmp_path, size=(5, 5)).draw("a", "reference").shape == (1, 1, 5, 5)


def test_one_npz_file_is_a_population(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.eye(9), b=np.eye(9))
    assert [d.name for d in make(tmp_path / "x.npz").distributions()] == ["a", "b"]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(9), r"neither vectors nor images.*got: shape \(9,\), float64"),
        (np.zeros((9, 4, 4)), r"neither.*float64 \| expected: .*\(n, H, W, 1 or 3\) uint8"),
        (np.zeros((9, 4), np.uint8), r"neither.*got: shape \(9, 4\), uint8"),
        (np.zeros((9, 3, 4, 4), np.uint8), r"neither.*got: shape \(9, 3, 4, 4\), uint8"),
        (np.zeros((9, 0)), r"neither.*got: shape \(9, 0\), float64"),
        (np.zeros((9, 2), complex), r"neither.*complex128"),
        (np.full((9, 2), "a"), r"neither.*<U1"),
    ],
)
def test_arrays_of_another_form(tmp_path: Path, array: np.ndarray, message: str) -> None:
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(DataError, match=message):
        make(tmp_path)


@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (-np.inf, "-inf"), (1e39, "inf")])
def test_values_that_are_not_finite(tmp_path: Path, value: float, shown: str) -> None:
    array = np.zeros((9, 3))
    array[4, 1] = array[5, 0] = value
    np.savez(tmp_path / "x.npz", good=np.ones((9, 3)), bad=array)
    message = rf"not finite \| at: .*x\.npz\[bad\], row 4, column 1 .*got: {shown}, and 1 more"
    with pytest.raises(DataError, match=message):
        make(tmp_path)


SECONDS = 1.7e9 + 20 * np.random.default_rng(0).normal(size=60)


@pytest.mark.parametrize("values", [SECONDS, np.arange(60) + 10**12], ids=["float", "whole"])
def test_differences_beyond_float32_are_refused(
    tmp_path: Path, values: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sno_dist.shards.sources.groups.AT_ONCE", 14)  # seven rows
    columns = np.stack([np.arange(60), values], 1)
    np.savez(tmp_path / "x.npz", few=columns[:9], many=columns[9:])
    told = rf"values about {values.mean():.6g} that differ by {values.std():.3g}".replace(
        "+", r"\+"
    )
    message = rf"lost in float32 \| at: .*x\.npz, column 1 \(from 0\) \| got: {told} \|.*an offset"
    with pytest.raises(DataError, match=message):
        make(tmp_path)
    columns[:, 1] -= columns[0, 1]
    np.savez(tmp_path / "x.npz", few=columns[:9], many=columns[9:])
    assert make(tmp_path).shape == (2,)


def test_a_column_may_stand_still_in_one_distribution(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    np.save(tmp_path / "frozen.npy", 1000 + 1e-6 * rng.normal(size=(30, 1)))
    with pytest.raises(DataError, match=r"lost in float32 \| at: .*frozen\.npy, column 0"):
        make(tmp_path)
    np.save(tmp_path / "free.npy", 1000 + rng.normal(size=(30, 1)))
    assert make(tmp_path).shape == (1,)


@pytest.mark.parametrize("rows", [30, 5000])
def test_a_constant_has_no_differences_nor_has_its_rounding(tmp_path: Path, rows: int) -> None:
    constant = np.full((rows, 1), 1.7e9 + 0.1)
    rounded = np.where(np.arange(rows)[:, None] % 2, 0.1 + 0.2, 0.3)
    assert len(np.unique(rounded)) == 2
    np.save(tmp_path / "a.npy", np.hstack([constant, rounded]))
    np.save(tmp_path / "b.npy", np.hstack([constant, rounded])[:7])
    assert make(tmp_path).shape == (2,)


def test_different_widths_and_kinds(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((9, 3)))
    np.save(tmp_path / "b.npy", np.zeros((9, 2)))
    message = r"different widths.*b\.npy \| got: vectors of shape \(2,\) \| expected: .*\(3,\)"
    with pytest.raises(DataError, match=message):
        make(tmp_path)
    np.save(tmp_path / "b.npy", np.zeros((9, 4, 4), np.uint8))
    with pytest.raises(DataError, match=r"got: images of shape \(4, 4\)"):
        make(tmp_path)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_object_arrays_are_not_unpickled(tmp_path: Path, suffix: str) -> None:
    ragged = np.array([np.zeros(3), Touches(tmp_path / "ran")], dtype=object)
    save = np.save if suffix == "npy" else np.savez
    save(tmp_path / f"x.{suffix}", ragged)
    with pytest.raises(
        DataError, match=r"an object array \| at: .*different lengths.*numpy\.savez"
    ):
        make(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_damaged_files(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.random.default_rng(0).random((90, 3)))
    whole = (tmp_path / "x.npz").read_bytes()
    flipped = whole[:1000] + bytes([whole[1000] ^ 255]) + whole[1001:]
    for data in (b"", b"no array", whole[:500], flipped):
        (tmp_path / "x.npz").write_bytes(data)
        with pytest.raises(DataError, match=r"cannot read an array \| at: .*x\.npz") as caught:
            make(tmp_path)
        assert "pickle" not in str(caught.value)
    (tmp_path / "x.npz").unlink()
    np.save(tmp_path / "x.npy", np.zeros((90, 3)))
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-8])
    with pytest.raises(DataError, match=r"cannot read an array \| at: .*x\.npy"):
        make(tmp_path)


def test_misnamed_and_empty_archives(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros((9, 3)))
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    with pytest.raises(DataError, match=r"not an \.npy file"):
        make(tmp_path)
    np.save(tmp_path / "x.npy", np.zeros((9, 3)))
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    with pytest.raises(DataError, match=r"not an \.npz file"):
        make(tmp_path)
    np.savez(tmp_path / "x.npz")
    with pytest.raises(DataError, match=r"no arrays \| at: .*x\.npz"):
        make(tmp_path)


def test_two_arrays_of_one_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros((9, 3)))
    np.savez(tmp_path / "y.npz", a=np.zeros((9, 3)))
    with pytest.raises(
        DataError, match=r"same name \| at: .*y\.npz\[a\] \| got: a, as in .*x\.npz"
    ):
        make(tmp_path)
