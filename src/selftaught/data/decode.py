"""Decode an image file, bytes or pixels to RGB uint8, or return the reason for failure.

A failure is returned as a reason (a `str`), because one bad file must not abort an hour of decoding. The EXIF
orientation is applied, transparent images are composited over white, and 16 bits are converted to 8 (see
`brightness.py`). The first frame of an animation is used. Pillow's warnings are left to the warning
filters of the host process.

Not supported: color profiles (images are assumed to be sRGB), raw camera formats, HEIC.
"""

import os
import threading
from contextlib import AbstractContextManager, nullcontext
from errno import ELOOP

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from selftaught.data.brightness import NOMINAL, Ranges, is_wide, to_bytes
from selftaught.data.content import content_id, loaded
from selftaught.data.opening import PIXEL_LIMIT, Unreadable, open_image
from selftaught.data.reader import Raw, readable

RGB = NDArray[np.uint8]
"""A decoded image: (3, H, W)."""

UNSUPPORTED = (".heic", ".heif", ".jxl", ".svg")
"""Suffixes of unsupported image formats: such files are reported as broken instead of ignored silently."""
SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".ppm"]
) | {".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".ico", ".avif", *UNSUPPORTED}
ORIENTATION = 0x0112
"""EXIF tag; values above 4 exchange height and width."""
LARGE = 2**25
"""Number of pixels above which images are decoded one at a time, because each thread could need a gigabyte."""
_ONE_LARGE = threading.Lock()


def _new_lock() -> None:
    """Replace the lock in a forked child: the thread that held it in the parent does not exist there."""
    global _ONE_LARGE
    _ONE_LARGE = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_new_lock)


def decode(raw: Raw, side: int, ranges: Ranges = NOMINAL) -> RGB | str:
    """Decode one image to a square: antialiased resize of the short side to `side` pixels, then center crop.

    Args:
        raw: the image.
        side: side of the square in pixels.
        ranges: value ranges of the source, for images other than 8-bit ones.

    Returns:
        (3, side, side) uint8, or the reason for failure.
    """
    return decode_with_id(raw, side, ranges)[0]


def decode_with_id(raw: Raw, side: int, ranges: Ranges = NOMINAL) -> tuple[RGB | str, int]:
    """Decode one image like `decode`, and digest its content; a file is read once for both."""
    try:
        content = loaded(raw)
        with open_image(content) as image:
            image.draft(None, (2 * side, 2 * side))  # reduced-scale JPEG decoding, to at least twice the side
            with _exclusive_if_large(image):
                return _square(_rgb(_upright(image), ranges), side), content_id(content)
    except Exception as error:  # Pillow's decoders raise almost any exception on damaged data
        return failure_reason(error), 0


def decode_whole(raw: Raw, ranges: Ranges = NOMINAL) -> RGB | str:
    """Decode one image at full resolution: (3, H, W) uint8, or the reason for failure."""
    try:
        with open_image(raw) as image, _exclusive_if_large(image):
            # Always a copy: Pillow's array is read-only, and `ascontiguousarray` returns it for images of one pixel.
            return np.array(np.asarray(_rgb(_upright(image), ranges)).transpose(2, 0, 1), order="C")
    except Exception as error:
        return failure_reason(error)


def short_side(raw: Raw) -> int | None:
    """Length of the shorter side in pixels, from the header alone; None if it cannot be read."""
    try:
        with open_image(raw) as image:
            return min(image.size)
    except Exception:
        return None


def image_size(raw: Raw) -> tuple[int, int]:
    """Height and width in pixels, from the header alone, as the image is displayed.

    Raises:
        Unreadable: it cannot be read.
    """
    with open_image(raw) as image:
        turned = image.getexif().get(ORIENTATION, 1) > 4 if hasattr(image, "getexif") else False
        return (image.width, image.height) if turned else (image.height, image.width)


def _exclusive_if_large(image: Image.Image) -> AbstractContextManager[object]:
    """A lock for images of more than `LARGE` pixels, which are decoded one at a time."""
    return _ONE_LARGE if image.width * image.height > LARGE else nullcontext()


def _square(rgb: Image.Image, side: int) -> RGB:
    """Resized center crop of an image: (3, side, side)."""
    edge = min(rgb.size)
    left, top = (rgb.width - edge) / 2, (rgb.height - edge) / 2
    square = rgb.resize((side, side), Image.Resampling.BICUBIC, (left, top, left + edge, top + edge), 3.0)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; damaged EXIF data is ignored."""
    image.load()
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:
        return image
    return upright


def _rgb(image: Image.Image, ranges: Ranges) -> Image.Image:
    """Convert any Pillow mode to RGB: transparency over white, 16 and 32 bits to 8."""
    if is_wide(image):
        return Image.fromarray(to_bytes(image, ranges.of(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        solid = image.convert("RGBA")
        white = Image.new("RGBA", solid.size, "white")
        return Image.alpha_composite(white, solid).convert("RGB")
    if image.mode == "LAB":
        raise Unreadable("is in CIELAB color, which is not supported: save it as RGB")
    return image.convert("RGB")


def failure_reason(error: Exception) -> str:
    """Reason for a decoding failure in plain words; Pillow's message is included only if it is readable."""
    if isinstance(error, Unreadable):
        return str(error)
    if isinstance(error, Warning):
        return f"makes Pillow warn, and warnings are errors in this process ({readable(str(error)).rstrip('.')[:80]})"
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, OSError) and error.errno == ELOOP:
        return "is a circular link"
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {PIXEL_LIMIT / 1e6:.0f} million pixels"
    if isinstance(error, MemoryError):
        return "needs more memory than is available"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened ({error.strerror.lower()})"
    message = readable(str(error)).rstrip(".")
    if isinstance(error, EOFError) or "truncated" in message.lower():
        return "cannot be decoded (the file is truncated)"
    if "text chunk" in message.lower() or "MAX_TEXT" in message:
        return "cannot be decoded (it contains too much text or too large a color profile)"
    is_readable = isinstance(error, OSError | SyntaxError | ValueError) and message
    if any(mark in message for mark in ("decoder", "literal", "b'", 'b"')):  # internals of Pillow, or bytes of the file
        is_readable = False
    return f"cannot be decoded (the file is damaged{f': {message}' if is_readable else ''})"
