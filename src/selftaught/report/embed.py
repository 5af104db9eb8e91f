"""Pictures inside a page: nothing is fetched from elsewhere, and charts follow the page into its dark mode."""

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
"""Pixels along a side and in all, as the header gives them, of a picture that is decoded."""
NARROW = 720
"""Pixels that a picture of small images should come near to in width: narrower ones are magnified by a whole number."""


@dataclass(frozen=True)
class Picture:
    """An image as a page can carry it."""

    uri: str
    width: int
    """In pixels of the page, after magnification."""
    height: int
    magnified: bool = False
    """Whether it has fewer pixels than it takes on the page: its pixels are then shown as squares."""


def inline(figure: Figure, salt: str, words: str) -> Markup:
    """A chart as an `<svg>` element whose colours are the page's own.

    Args:
        figure: the chart.
        salt: a text that no other chart of the page has.
        words: what it shows, for who cannot see it.
    """
    text = svg(figure, salt)
    for color in DARK:
        text = text.replace(color, f"var(--{color[1:]})")
    return Markup(text.replace("<svg ", f'<svg role="img" aria-label="{escape(words)}" ', 1))


def png_of(figure: Figure) -> Picture:
    """A figure made of pixels, such as a grid, pixel for pixel."""
    written = io.BytesIO()
    figure.savefig(written, format="png")
    with Image.open(written) as image:
        return Picture(data_uri(written.getvalue(), "png"), *image.size)


def picture(path: Path, root: Path, limit: int, first_row: bool = False) -> Picture | None:
    """A PNG file: as it is where it is small, else as WebP, shrunk until it fits. None where it cannot be read.

    Args:
        path: the file.
        root: the run folder that it is in.
        limit: bytes that it may take.
        first_row: leave out what stands below the first clear line of a grid.
    """
    content, kind = read_limited(path, root, MAX_PICTURE), "png"
    try:
        image = decode_png(content)
        if first_row:
            image = above_gutter(image)
            image.save(written := io.BytesIO(), format="PNG", optimize=True)
            content = written.getvalue()
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError):
        return None
    width, height = image.size
    while len(content) > limit and min(image.size) > 16:
        written, kind = io.BytesIO(), "webp"
        image.save(written, format="WEBP", quality=80)
        content = written.getvalue()
        image = image.resize((max(1, image.width * 4 // 5), max(1, image.height * 4 // 5)), Image.Resampling.LANCZOS)
    times = max(1, NARROW // width)
    return Picture(data_uri(content, kind), width * times, height * times, times > 1)


def decode_png(content: bytes) -> Image.Image:
    """The pixels of a PNG file, as RGBA.

    Pillow's other formats are not tried: one of them, PostScript, starts a program.

    Raises:
        OSError, ValueError, SyntaxError: it is damaged, another format, or has too many pixels.
    """
    with warnings.catch_warnings(), Image.open(io.BytesIO(content), formats=("PNG",)) as opened:
        warnings.simplefilter("error")  # what Pillow warns of is no picture of a run
        if max(opened.size) > MAX_SIDE or opened.width * opened.height > MAX_PIXELS:
            raise ValueError(f"{opened.width} x {opened.height} pixels are too many")
        return opened.convert("RGBA")


def above_gutter(image: Image.Image) -> Image.Image:
    """What stands above the first line that is clear from left to right: all where none is."""
    clear = np.asarray(image.getchannel("A")).max(1) == 0
    return image.crop((0, 0, image.width, int(clear.argmax()))) if clear.any() and not clear[0] else image


def data_uri(content: bytes, kind: str) -> str:
    """Bytes of an image as an address that holds them."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"
