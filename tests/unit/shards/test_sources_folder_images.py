from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from sno_dist.config.schema import Folder, Split
from sno_dist.errors import DataError
from sno_dist.shards.sources.factory import make_source
from sno_dist.shards.sources.folder import FolderSource
from sno_dist.shards.sources.images import read_image

RAMP = np.linspace(0, 255, 12 * 10).reshape(12, 10).astype(np.uint8)


def make(path: Path, **settings: object) -> FolderSource:
    source = make_source(Folder(kind="folder", path=str(path), **settings), Split())
    assert isinstance(source, FolderSource)
    return source


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """scikit-learn's digits as PNG files of three sizes, a folder for each of three digits."""
    data = load_digits()
    for digit in (0, 1, 2):
        folder = tmp_path / f"digit {digit}"
        folder.mkdir()
        for i, glyph in enumerate(data.images[data.target == digit][:20]):
            image = Image.fromarray((glyph * 15.9).astype(np.uint8))
            image.resize([(8, 8), (16, 16), (9, 12)][i % 3]).save(folder / f"{i:02d}.png")
        (folder / ".DS_Store").write_bytes(b"junk")
    (tmp_path / "README.txt").write_text("about")
    return tmp_path


def test_bytes_in_32_bits_have_no_known_range(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 8), 200, np.int32)).save(tmp_path / "x.tiff")
    with pytest.raises(DataError, match=r"no known range.*mode I, pixels 200 to 200"):
        read_image(tmp_path / "x.tiff", "L", None)


def test_folders_of_different_sizes(digits: Path) -> None:
    source = make(digits)
    assert (source.domain, source.shape) == ("image", (1, 8, 8))
    assert source.roles == ("model", "reference", "judge")
    assert len(source.distributions()) == 3
    assert source.audit()["samples"] == {"model": 36, "reference": 9, "judge": 15}
    assert list(source.audit()["renamed"].values()) == ["digit 0", "digit 1", "digit 2"]
    assert make(digits, size=(6, 10), mode="RGB").shape == (3, 6, 10)
    assert make(digits, size=(6, 10)).draw(source.distributions()[0].name, "model").shape == (
        12,
        1,
        6,
        10,
    )


def test_a_copied_file_shows_in_the_audit(digits: Path) -> None:
    assert make(digits).audit()["shared_total"] == 0
    folder = digits / "digit 0"
    for i in range(20, 40):
        (folder / f"{i}.png").write_bytes((folder / "00.png").read_bytes())
    assert make(digits).audit()["shared_total"] == 3


def test_grey_survives_every_format(tmp_path: Path) -> None:
    grey = Image.fromarray(RAMP)
    images = {
        "l.png": grey,
        "rgb.bmp": grey.convert("RGB"),
        "rgba.png": grey.convert("RGBA"),
        "la.png": grey.convert("LA"),
        "palette.gif": grey.convert("P"),
        "palette.png": grey.convert("P"),
        "sixteen.png": Image.fromarray(RAMP.astype(np.uint16) * 257),
        "sixteen.tiff": Image.fromarray(RAMP.astype(np.uint16) * 257),
        "wide.tiff": Image.fromarray(RAMP.astype(np.int32) * 257),
    }
    for name, image in images.items():
        image.save(tmp_path / name)
        pixels = read_image(tmp_path / name, "L", None)
        assert pixels.shape == (1, 12, 10)
        assert (pixels[0] == RAMP).all(), name
        assert (read_image(tmp_path / name, "RGB", None) == RAMP).all(), name
    grey.save(tmp_path / "lossy.jpg", quality=95)
    lossy = read_image(tmp_path / "lossy.jpg", "L", None)[0]
    assert np.abs(lossy.astype(int) - RAMP).max() < 12
    Image.fromarray(RAMP > 99).save(tmp_path / "bits.png")
    assert (read_image(tmp_path / "bits.png", "L", None)[0] == (RAMP > 99) * 255).all()


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:2] = (200, 100, 50, 255)
    pixels[3, 0, 3] = 51  # black, a fifth opaque
    Image.fromarray(pixels).save(tmp_path / "a.png")
    colour = read_image(tmp_path / "a.png", "RGB", None)
    assert (colour[:, 0, 0] == (200, 100, 50)).all()
    assert (colour[:, 2] == 255).all()
    assert (colour[:, 3, 0] == 204).all()
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([10, 10, 10, 90, 90, 90])
    palette.save(tmp_path / "b.png", transparency=1)
    assert read_image(tmp_path / "b.png", "L", None).tolist() == [[[10, 255]]]


def test_the_cameras_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.fromarray(RAMP)
    exif = image.getexif()
    exif[0x0112] = 6  # turn clockwise to view
    image.save(tmp_path / "a.png", exif=exif)
    assert (read_image(tmp_path / "a.png", "L", None)[0] == np.rot90(RAMP, -1)).all()


def test_resizing_is_antialiased(tmp_path: Path) -> None:
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    Image.fromarray(checks).save(tmp_path / "a.png")
    small = read_image(tmp_path / "a.png", "L", (8, 16))
    assert small.shape == (1, 8, 16)
    assert np.abs(small.astype(int) - 128).max() <= 3


def add(folder: Path, name: str, data: bytes) -> None:
    for i in range(8):
        Image.fromarray(RAMP).save(folder / f"{i}.png")
    (folder / name).write_bytes(data)


@pytest.mark.parametrize("kind", ["text", "empty", "truncated"])
def test_an_unreadable_image_is_named(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    add(folder, "x.png", b"")
    whole = (folder / "0.png").read_bytes()
    data = {"text": b"not an image", "empty": b"", "truncated": whole[: len(whole) // 2]}[kind]
    (folder / "x.png").write_bytes(data)
    with pytest.raises(
        DataError, match=r"cannot read an image \| at: .*x\.png \| got: .+ \| expec"
    ):
        make(tmp_path).audit()


def test_pixels_without_a_known_range(tmp_path: Path) -> None:
    Image.fromarray(np.ones((3, 3), np.float32)).save(tmp_path / "f.tiff")
    Image.fromarray(np.full((3, 3), 70000, np.int32)).save(tmp_path / "i.tiff")
    with pytest.raises(DataError, match=r"no known range.*mode F, pixels 1\.0 to 1\.0"):
        read_image(tmp_path / "f.tiff", "L", None)
    with pytest.raises(DataError, match=r"no known range.*mode I, pixels 70000 to 70000"):
        read_image(tmp_path / "i.tiff", "L", None)


def test_empty_and_nested_folders(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match=r"distribution's folder is empty \| at: .*/a \|"):
        make(tmp_path)
    (tmp_path / "a" / "b").mkdir()
    with pytest.raises(DataError, match=r"has a folder inside \| at: .*/a/b \|"):
        make(tmp_path)


def dealt_by_hand(path: Path) -> Path:
    """Two distributions of 3, 2 and 1 images for the roles, each image of a grey of its own."""
    greys = iter(range(10, 250, 10))
    for name in "ab":
        for role, count in (("model", 3), ("judge", 2), ("reference", 1)):
            folder = path / name / role
            folder.mkdir(parents=True)
            for i in range(count):
                Image.new("L", (2, 2), next(greys)).save(folder / f"{i}.png")
    return path


def test_samples_dealt_by_hand_keep_their_roles(tmp_path: Path) -> None:
    source = make(dealt_by_hand(tmp_path), reference=0.5)
    found = {
        (name, role): source.draw(name, role)[:, 0, 0, 0].tolist()
        for name in "ab"
        for role in source.roles
    }
    assert found == {
        ("a", "model"): [10, 20, 30],
        ("a", "judge"): [40, 50],
        ("a", "reference"): [60],
        ("b", "model"): [70, 80, 90],
        ("b", "judge"): [100, 110],
        ("b", "reference"): [120],
    }


def test_samples_dealt_by_hand_in_part_are_refused(tmp_path: Path) -> None:
    dealt_by_hand(tmp_path)
    stray = tmp_path / "b" / "stray.png"
    Image.new("L", (2, 2)).save(stray)
    with pytest.raises(DataError, match=r"more than a folder for each role .*/b \| got: stray.png"):
        make(tmp_path)
    stray.unlink()
    shutil.rmtree(tmp_path / "b" / "judge")
    with pytest.raises(DataError, match=r"different roles .*/b \| got: model, reference"):
        make(tmp_path)
