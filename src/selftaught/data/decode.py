"""Decoding: a file, bytes or pixels in; RGB uint8 out, or a sentence that says why not.

Whatever is wrong with an image becomes a reason (a `str`): one bad file must not end an hour of decoding. Orientation
from EXIF is applied, transparency is laid on white, 16 bits become 8 (see `brightness.py`). Of an animation the first
frame is taken. Pillow's warnings about odd files are left to the host process, whose filters decide what is shown.

Not here: colour profiles (an image is taken to be sRGB), raw camera formats, HEIC.
"""

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

CLAIMED = (".heic", ".heif", ".jxl", ".svg")
"""Not read, but images to their owner: better counted as broken than silently left out."""
SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".ppm"]
) | {".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".ico", ".avif", *CLAIMED}
LARGE = 2**25
"""Pixels above which images are decoded one at a time: a megabyte of file may ask for a gigabyte, in every thread."""
_ONE_LARGE = threading.Lock()


def decode(raw: Raw, side: int, ranges: Ranges = NOMINAL) -> RGB | str:
    """Decode one image to a square.

    The short side is resized (antialiased) to `side` pixels and the middle of the long one is kept.

    Args:
        raw: the image.
        side: pixels along the square.
        ranges: value ranges of the source, for images that are not 8-bit.

    Returns:
        (3, side, side) uint8, or the reason why there is none.
    """
    return decode_with_id(raw, side, ranges)[0]


def decode_with_id(raw: Raw, side: int, ranges: Ranges = NOMINAL) -> tuple[RGB | str, int]:
    """Decode one image as `decode` does, and digest its content; a file is read once for both."""
    try:
        content = loaded(raw)
        with open_image(content) as image:
            image.draft(None, (2 * side, 2 * side))  # JPEG decodes at a power of two less; half the rest by resizing
            with _turn(image):
                return _square(_rgb(_upright(image), ranges), side), content_id(content)
    except Exception as error:  # Pillow's decoders raise nearly every kind there is on damaged data
        return _reason(error), 0


def decode_whole(raw: Raw, ranges: Ranges = NOMINAL) -> RGB | str:
    """Decode one image at full resolution: (3, H, W) uint8, or the reason why there is none."""
    try:
        with open_image(raw) as image, _turn(image):
            return np.ascontiguousarray(np.asarray(_rgb(_upright(image), ranges)).transpose(2, 0, 1))
    except Exception as error:
        return _reason(error)


def short_side(raw: Raw) -> int | None:
    """Pixels along the shorter side, from the header alone; None where it cannot be read."""
    try:
        with open_image(raw) as image:
            return min(image.size)
    except Exception:
        return None


def _turn(image: Image.Image) -> AbstractContextManager[object]:
    """Wait for other large images to be done, if this is one."""
    return _ONE_LARGE if image.width * image.height > LARGE else nullcontext()


def _square(rgb: Image.Image, side: int) -> RGB:
    """The middle of an image: (3, side, side)."""
    edge = min(rgb.size)
    left, top = (rgb.width - edge) / 2, (rgb.height - edge) / 2
    square = rgb.resize((side, side), Image.Resampling.BICUBIC, (left, top, left + edge, top + edge), 3.0)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def _upright(image: Image.Image) -> Image.Image:
    """Apply the orientation of EXIF; damaged EXIF data is no reason to lose the image."""
    image.load()
    try:
        turned = ImageOps.exif_transpose(image)
    except Exception:
        return image
    return turned


def _rgb(image: Image.Image, ranges: Ranges) -> Image.Image:
    """Convert any mode of Pillow to RGB: transparency over white, 16 and 32 bits to 8."""
    if is_wide(image):
        return Image.fromarray(to_bytes(image, ranges.of(image))).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        solid = image.convert("RGBA")
        white = Image.new("RGBA", solid.size, "white")
        return Image.alpha_composite(white, solid).convert("RGB")
    if image.mode == "LAB":
        raise Unreadable("is in CIELAB color, which is not supported: save it as RGB")
    return image.convert("RGB")


def _reason(error: Exception) -> str:
    """What is wrong, for people: Pillow's own words only where they were written to be read."""
    if isinstance(error, Unreadable):
        return str(error)
    if isinstance(error, Warning):
        return f"makes Pillow warn, and warnings are errors in this process ({readable(str(error)).rstrip('.')[:80]})"
    if isinstance(error, FileNotFoundError):
        return "leads to no file"
    if isinstance(error, OSError) and error.errno == ELOOP:
        return "is a link that leads in a circle"
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {PIXEL_LIMIT / 1e6:.0f} million pixels"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be open_image ({error.strerror.lower()})"
    said = readable(str(error)).rstrip(".")
    if isinstance(error, EOFError) or "truncated" in said.lower():
        return "cannot be decoded (the file is cut short)"
    if "text chunk" in said.lower() or "MAX_TEXT" in said:
        return "cannot be decoded (it carries more text, or a larger color profile, than an image should)"
    spoken = isinstance(error, OSError | SyntaxError | ValueError) and said
    if any(word in said for word in ("decoder", "literal", "b'", 'b"')):  # of its own code, or bytes of the file
        spoken = False
    return f"cannot be decoded (the file is damaged{f': {said}' if spoken else ''})"
