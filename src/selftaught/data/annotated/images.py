"""Annotated images: their files, sizes and boxes, checked when a source is opened rather than during a training."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selftaught.data.opening import Unreadable, open_image
from selftaught.data.reader import SAMPLE_BYTES
from selftaught.errors import UserError, readable

SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG", ".bmp", ".tif", ".tiff", ".webp")
"""Suffixes of images, in the order in which they are looked for where an annotation has none."""
TOLERANCE = 1.0
"""Pixels by which a box may reach beyond its image, because annotation tools count from 0 or from 1. What is beyond is
cut off."""
_ROTATED = (5, 6, 7, 8)
"""EXIF orientations that exchange width and height."""


@dataclass(frozen=True, eq=False)
class BoxedImage:
    """An image file with its boxes."""

    path: Path
    boxes: NDArray[np.float64]
    """(n, 4): x1, y1, x2, y2 in pixels of the upright image, from 0 at its left and top to its width and height."""
    names: tuple[str, ...]
    """(n,) class names."""
    ignored: NDArray[np.bool_]
    """(n,) boxes that are neither trained on nor counted in an evaluation: VOC's difficult objects, COCO's crowds."""


def find_image(folder: Path, name: str) -> Path | None:
    """The image of a name in a folder, with or without its suffix; None if there is none."""
    exact = folder / name
    if exact.suffix in SUFFIXES and exact.is_file():
        return exact
    return next((path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").is_file()), None)


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height of an image after its EXIF orientation is applied, from the header alone.

    Raises:
        UserError: it cannot be read.
    """
    try:
        with open_image(path) as image:
            width, height = image.size
            rotated = image.getexif().get(0x0112) in _ROTATED
    except Unreadable as error:
        raise UserError(f"{readable(str(path))} {error}: restore the image, or remove it from the list.") from error
    except Exception as error:  # Pillow raises almost any exception for damaged headers
        raise UserError(
            f"cannot read the image {readable(str(path))}: restore it, or remove it from the list."
        ) from error
    return (height, width) if rotated else (width, height)


def checked_boxes(
    boxes: list[tuple[float, float, float, float]], size: tuple[int, int], place: str
) -> NDArray[np.float64]:
    """The boxes of an image as an array, (n, 4).

    Args:
        boxes: x1, y1, x2, y2 each, in pixels.
        size: width and height of the image.
        place: the annotation, for error messages.

    Raises:
        UserError: a box has no area or is outside of the image.
    """
    width, height = size
    for number, (x1, y1, x2, y2) in enumerate(boxes, 1):
        name = f"box {number} of {place} (x {x1:g} to {x2:g}, y {y1:g} to {y2:g})"
        if not np.isfinite([x1, y1, x2, y2]).all() or x2 <= x1 or y2 <= y1:
            raise UserError(f"{name} has no area: correct or remove it.")
        if min(x1, y1) < -TOLERANCE or x2 > width + TOLERANCE or y2 > height + TOLERANCE:
            raise UserError(f"{name} is outside of its image of {width:,} x {height:,} pixels: correct or remove it.")
    array = np.array(boxes, np.float64).reshape(-1, 4)
    return array.clip(0, [width, height, width, height])


def require_size(given: tuple[int, int], path: Path, place: str) -> None:
    """Refuse an annotation that gives its image another size than it has.

    Raises:
        UserError: the sizes differ.
    """
    actual = upright_size(path)
    if given != actual:
        raise UserError(
            f"{place} is for an image of {given[0]:,} x {given[1]:,} pixels, but {readable(path.name)} has "
            f"{actual[0]:,} x {actual[1]:,}: correct the annotation or restore the image."
        )


def start_digest(path: Path) -> bytes:
    """A digest of the size and the beginning of a file, for fingerprints."""
    with path.open("rb") as file:
        return hashlib.blake2b(file.read(SAMPLE_BYTES) + str(path.stat().st_size).encode(), digest_size=16).digest()
