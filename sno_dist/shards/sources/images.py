"""Folders of images: every sub-folder a distribution, every file in it a sample.

Where the samples are dealt by hand, a distribution has a folder for each role.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from sno_dist.errors import DataError
from sno_dist.shards.sources.source import ROLES, Domain, Role

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["ImageFolders", "image_files", "read_image", "read_image_folders", "visible"]

_DAMAGE = (ValueError, TypeError, SyntaxError, EOFError)
"""What Pillow makes of damaged files, beside its own errors."""


def visible(folder: Path) -> list[Path]:
    """A folder's entries in a fixed order, without those that desktops and editors leave."""
    junk = {"Thumbs.db", "desktop.ini", "__MACOSX"}
    return sorted(p for p in folder.iterdir() if p.name not in junk and p.name[0] != ".")


def image_files(folder: Path) -> list[Path]:
    """The files in a distribution's folder, and in its folders one for each role, unchecked."""
    parts = [visible(entry) if entry.is_dir() else [entry] for entry in visible(folder)]
    return [file for file in chain.from_iterable(parts) if not file.is_dir()]


@dataclass(frozen=True, kw_only=True)
class ImageFolders:
    """Images read when asked for, so a population may be larger than memory; `Groups`.

    Args:
        files: Each group's files.
        mode: Grey or colour.
        size: (H, W) that every image is resized to.
        roles: The rows of each group and role, where they are dealt by hand; empty: they are not.
    """

    files: Mapping[str, tuple[Path, ...]]
    mode: Literal["L", "RGB"]
    size: tuple[int, int]
    roles: Mapping[str, Mapping[Role, NDArray[np.intp]]] = field(default_factory=dict)

    @property
    def domain(self) -> Domain:
        """Images."""
        return "image"

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return (len(self.mode), *self.size)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Files per sub-folder."""
        return {group: len(files) for group, files in self.files.items()}

    def read(self, group: str, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Some images of a sub-folder: (len(rows), C, H, W) uint8."""
        out = np.empty((len(rows), *self.shape), np.uint8)
        for image, row in zip(out, rows, strict=True):
            image[:] = read_image(self.files[group][row], self.mode, self.size)
        return out


def read_image_folders(
    root: Path, mode: Literal["L", "RGB"], size: tuple[int, int] | None
) -> ImageFolders:
    """List the images below a folder; only the first is opened, for its size.

    Args:
        root: The folder of sub-folders.
        mode: Grey or colour.
        size: (H, W), or none for that of the first image in name order.

    Raises:
        DataError: If a folder is empty or has folders other than one for each role, distributions
            differ in their roles, or the first image is unreadable.
    """
    folders = [entry for entry in visible(root) if entry.is_dir()]
    dealt = _dealt(folders[0])
    files: dict[str, tuple[Path, ...]] = {}
    roles: dict[str, dict[Role, NDArray[np.intp]]] = {}
    for folder in folders:
        if _dealt(folder) != dealt:
            raise DataError(
                "distributions are dealt to different roles",
                where=folder,
                got=", ".join(_dealt(folder)) or "no folder of a role",
                expected=", ".join(dealt) or f"none, as in {folders[0].name}",
            )
        parts = [_images(folder / role) for role in dealt] or [_images(folder)]
        files[folder.name] = tuple(chain.from_iterable(parts))
        if dealt:
            ends = np.cumsum([len(part) for part in parts])
            rows = np.split(np.arange(ends[-1]), ends[:-1])
            roles[folder.name] = dict(zip(dealt, rows, strict=True))
    if size is None:
        size = read_image(next(iter(files.values()))[0], mode, None).shape[1:]
    return ImageFolders(files=files, mode=mode, size=size, roles=roles)


def _dealt(folder: Path) -> tuple[Role, ...]:
    """The roles that a distribution's folder has folders of: those alone, or none."""
    dealt: tuple[Role, ...] = tuple(role for role in ROLES if (folder / role).is_dir())
    others = [entry.name for entry in visible(folder) if entry.name not in dealt]
    if dealt and others:
        raise DataError(
            "a distribution's folder has more than a folder for each role",
            where=folder,
            got=", ".join(others[:5]),
            expected=f"nothing but folders named {', '.join(ROLES)}",
        )
    return dealt


def _images(folder: Path) -> tuple[Path, ...]:
    entries = visible(folder)
    if not entries:
        raise DataError(
            "a distribution's folder is empty", where=folder, fix="add images or remove it"
        )
    for entry in entries:
        if entry.is_dir():
            raise DataError(
                "a distribution's folder has a folder inside",
                where=entry,
                expected=f"image files, or nothing but folders named {', '.join(ROLES)}",
                fix="move it up, if it is a distribution, or its images, if they are samples",
            )
    return tuple(entries)


def read_image(
    path: Path, mode: Literal["L", "RGB"], size: tuple[int, int] | None
) -> NDArray[np.uint8]:
    """Read one image of any common kind.

    The camera's orientation is applied, transparency is laid over white, 16 bits are scaled to 8
    (not clipped), and of an animation the first frame is taken. Resizing is bilinear, antialiased.

    Args:
        path: The file.
        mode: Grey or colour.
        size: (H, W) to resize to, or none to keep its own.

    Returns:
        (C, H, W).

    Raises:
        DataError: If it is no image, is damaged, or has pixels without a known range.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened)
            image = _eight_bits(image, path)
            if image.has_transparency_data:
                page = Image.new("RGBA", image.size, "white")
                page.alpha_composite(image.convert("RGBA"))
                image = page.convert("RGB")
            image = image.convert(mode)
    except (OSError, *_DAMAGE, Image.DecompressionBombError) as error:
        raise DataError(
            "cannot read an image",
            where=path,
            got=error,
            expected="a whole PNG, JPEG, TIFF, BMP, GIF or WebP file",
            fix="replace or remove it",
        ) from error
    if size is not None and image.size != size[::-1]:
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = np.asarray(image, np.uint8)
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    # PIL's own conversion clips everything above 255 to white.
    if not image.mode.startswith(("I", "F")):
        return image
    from PIL import Image

    pixels = np.asarray(image)
    low, high = pixels.min(), pixels.max()
    # what is stored in 32 bits and fits 8 may be of 8 or of 16
    if image.mode == "F" or low < 0 or high > 65535 or (image.mode == "I" and high <= 255):
        raise DataError(
            "an image's pixels have no known range",
            where=path,
            got=f"mode {image.mode}, pixels {low} to {high}",
            expected="8 bits, or 16 bits without sign",
            fix="save it with 8 bits a channel",
        )
    return Image.fromarray(np.floor(pixels / 257 + 0.5).astype(np.uint8))
