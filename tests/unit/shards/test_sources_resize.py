from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from sno_dist.shards.sources.resize import axis_weights, resize

SHAPES = [
    ((28, 56), (32, 32)),
    ((28, 56), (28, 56)),
    ((8, 16), (32, 32)),
    ((37, 5), (9, 11)),
    ((64, 1), (1, 7)),
]


@pytest.mark.parametrize(("given", "wanted"), SHAPES)
def test_agrees_with_torch_antialias(given: tuple[int, int], wanted: tuple[int, int]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 2, *given), dtype=np.uint8)
    ours = resize(images, *wanted)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(images).double(), size=wanted, mode="bilinear", antialias=True
    ).numpy()
    assert ours.shape == theirs.shape
    # Before rounding the two differ by the 2**-20 steps of the weights, 5e-4 of 255 at most; so
    # after it by half a grey level and that.
    assert np.abs(ours - theirs).max() <= 0.5005
    exact = axis_weights(given[0], wanted[0]) @ images @ axis_weights(given[1], wanted[1]).T
    assert np.abs(exact - theirs).max() < 5e-3


@pytest.mark.parametrize(("given", "wanted"), SHAPES)
def test_agrees_with_pil(given: tuple[int, int], wanted: tuple[int, int]) -> None:
    image = np.random.default_rng(1).integers(0, 256, given, dtype=np.uint8)
    theirs = Image.fromarray(image).resize(wanted[::-1], Image.Resampling.BILINEAR)
    # PIL also rounds between its two passes: one level.
    difference = resize(image, *wanted).astype(int) - np.asarray(theirs).astype(int)
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_constants_stay_constant(level: int) -> None:
    for given, wanted in SHAPES:
        assert (resize(np.full((3, *given), level, np.uint8), *wanted) == level).all()
        assert (axis_weights(given[0], wanted[0]).sum(axis=1) == 1).all()


def test_sums_do_not_depend_on_their_order() -> None:
    images = (load_digits().images[:64] * 15.9).astype(np.uint8)
    rows, columns = axis_weights(8, 5), axis_weights(8, 13)
    forwards = rows @ images @ columns.T
    shuffle = np.random.default_rng(0).permutation(8)
    backwards = (rows[:, shuffle] @ images[:, shuffle][:, :, shuffle]) @ columns[:, shuffle].T
    assert (forwards == backwards).all()


def test_many_images_are_resized_as_one_is() -> None:
    images = np.random.default_rng(2).integers(0, 256, (2100, 6, 4), dtype=np.uint8)
    whole = resize(images, 3, 5)
    assert (whole[[0, 1023, 1024, 2099]] == resize(images[[0, 1023, 1024, 2099]], 3, 5)).all()
