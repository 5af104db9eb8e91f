"""Images and charts embedded in the HTML page, so that it needs no other file.

Charts use the colors of the page and therefore follow its dark mode.
"""

import base64
import io
import struct
import warnings
import zlib
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from selftaught.figures.style import DARK, svg
from selftaught.report.record import MAX_PICTURE
from selftaught.runs.files import read_limited

MAX_SIDE, MAX_PIXELS = 8192, 2**24
"""Limits on the side and on the number of pixels of an image to be decoded, checked in its header."""
TARGET_WIDTH = 720
"""Width in pixels up to which small images are magnified, by an integer factor."""


@dataclass(frozen=True)
class Picture:
    """An image embedded as a data URI."""

    uri: str
    width: int
    """In CSS pixels, after magnification."""
    height: int
    magnified: bool = False
    """Whether the image is magnified on the page; its pixels are then shown as squares, without interpolation."""


def inline(figure: Figure, salt: str, alt: str) -> Markup:
    """A chart as an `<svg>` element that uses the color variables of the page.

    Args:
        figure: the chart.
        salt: a text that is unique on the page, for element identifiers.
        alt: text alternative for screen readers.
    """
    text = svg(figure, salt)
    for color in DARK:
        text = text.replace(color, f"var(--{color[1:]})")
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{escape(alt)}" ', 1))


def png_of(figure: Figure) -> Picture:
    """A figure of pixels, such as a grid, as PNG without resampling."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    with Image.open(buffer) as image:
        return Picture(data_uri(buffer.getvalue(), "png"), *image.size)


def picture(path: Path, root: Path, limit: int, first_row: bool = False) -> Picture | None:
    """Embed a PNG file: unchanged if it is small enough, otherwise as WebP, downscaled until it fits.

    Args:
        path: the file.
        root: the run folder that contains it.
        limit: maximum bytes.
        first_row: keep only the first row of a grid.

    Returns:
        The image, or None if it cannot be read.
    """
    content, kind = read_limited(path, root, MAX_PICTURE), "png"
    try:
        image = decode_png(content)
        if first_row:
            image = above_gutter(image)
            image.save(buffer := io.BytesIO(), format="PNG", optimize=True)
            content = buffer.getvalue()
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError):
        return None
    width, height = image.size
    while len(content) > limit and min(image.size) > 16:
        buffer, kind = io.BytesIO(), "webp"
        image.save(buffer, format="WEBP", quality=80)
        content = buffer.getvalue()
        image = image.resize((max(1, image.width * 4 // 5), max(1, image.height * 4 // 5)), Image.Resampling.LANCZOS)
    factor = max(1, TARGET_WIDTH // width)
    return Picture(data_uri(content, kind), width * factor, height * factor, factor > 1)


def decode_png(content: bytes) -> Image.Image:
    """The pixels of a PNG file, as RGBA.

    Pillow's other formats are disabled, because decoding PostScript starts an external program.

    Raises:
        OSError, ValueError, SyntaxError: the file is damaged, has another format, or has too many pixels.
    """
    with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=("PNG",)) as opened:
        warnings.simplefilter("error")  # images written by a run raise no warning
        if max(opened.size) > MAX_SIDE or opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{opened.width} x {opened.height} pixels exceed the limit")
        return opened.convert("RGBA")


def above_gutter(image: Image.Image) -> Image.Image:
    """The part above the first fully transparent row of pixels; the whole image if there is none."""
    transparent = np.asarray(image.getchannel("A")).max(1) == 0
    if transparent[0] or not transparent.any():
        return image
    return image.crop((0, 0, image.width, int(transparent.argmax())))


def data_uri(content: bytes, kind: str) -> str:
    """The bytes of an image as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
