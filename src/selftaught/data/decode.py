"""Decoding: a file, bytes or pixels in; RGB uint8 out, or a sentence that says why not.

Whatever is wrong with an image becomes a reason (a `str`): one bad file must not end an hour of decoding. Orientation
from EXIF is applied, transparency is laid on white, 16 bits become 8. Of an animation the first frame is taken.
Only formats that Pillow reads by itself are tried: EPS, for one, would start another program.

Not here: colour profiles (an image is taken to be sRGB), raw camera formats, HEIC.
"""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from errno import ELOOP
from pathlib import Path
from stat import S_ISREG

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from selftaught.data.reader import Raw, readable

RGB = NDArray[np.uint8]
"""A decoded image: (3, H, W)."""

Image.init()  # registers every format; WebP, AVIF and JPEG 2000 are not part of every build of Pillow
FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "JPEG2000", "ICO", "AVIF")
    if name in Image.OPEN
)
CLAIMED = (".heic", ".heif", ".jxl", ".svg")
"""Not read, but images to their owner: better counted as broken than silently left out."""
SUFFIXES = frozenset(
    [".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".ppm"]
) | {".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".ico", ".avif", *CLAIMED}
SIGNATURES = {
    b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP", b"RIFF": "WebP", b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}  # fmt: skip
"""How files begin, to tell a damaged image from what never was one."""
PIXEL_LIMIT = 178_956_970
"""Pixels above which an image is not decoded: Pillow's own bound against decompression bombs."""
LARGE = 2**25
"""Pixels above which images are decoded one at a time: a megabyte of file may ask for a gigabyte, in every thread."""
_ONE_LARGE = threading.Lock()


def decode(raw: Raw, side: int) -> RGB | str:
    """Decode one image to a square.

    The short side is resized (antialiased) to `side` pixels and the middle of the long one is kept.

    Returns:
        (3, side, side) uint8, or the reason why there is none.
    """
    try:
        with _opened(raw) as image:
            image.draft(None, (2 * side, 2 * side))  # JPEG decodes at a power of two less; half the rest by resizing
            with _turn(image):
                return _square(_rgb(_upright(image)), side)
    except Exception as error:  # Pillow's decoders raise nearly every kind there is on damaged data
        return _reason(error)


def decode_whole(raw: Raw) -> RGB | str:
    """Decode one image at full resolution: (3, H, W) uint8, or the reason why there is none."""
    try:
        with _opened(raw) as image, _turn(image):
            return np.ascontiguousarray(np.asarray(_rgb(_upright(image))).transpose(2, 0, 1))
    except Exception as error:
        return _reason(error)


def short_side(raw: Raw) -> int | None:
    """Pixels along the shorter side, from the header alone; None where it cannot be read."""
    try:
        with _opened(raw) as image:
            return min(image.size)
    except Exception:
        return None


@contextmanager
def quiet() -> Iterator[None]:
    """Keep Pillow's warnings about odd files to ourselves.

    Wrap whole loops, not single calls: which warnings are shown is one setting for all threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class _Unreadable(Exception):
    """Carries a reason."""


def _opened(raw: Raw) -> Image.Image:
    """Read the header, and refuse what is empty, no file or too large to decode."""
    if isinstance(raw, np.ndarray):
        if not raw.size:
            raise _Unreadable("is empty")
        return Image.fromarray(raw)
    if isinstance(raw, bytes):
        if not raw:
            raise _Unreadable("is empty")
    else:
        found = raw.stat()
        if not S_ISREG(found.st_mode):  # opening a pipe would wait for ever
            raise _Unreadable("is a folder, a pipe, a socket or a device, not a file")
        if not found.st_size:
            raise _Unreadable("is empty")
    try:
        image = Image.open(io.BytesIO(raw) if isinstance(raw, bytes) else raw, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise _Unreadable(_unidentified(raw)) from error
    if image.width * image.height > PIXEL_LIMIT:
        image.close()
        raise _Unreadable(f"has {image.width} x {image.height} pixels, more than {PIXEL_LIMIT / 1e6:.0f} million")
    return image


def _unidentified(raw: bytes | Path) -> str:
    """What can be said of a file that Pillow does not know."""
    if isinstance(raw, Path):
        with raw.open("rb") as file:
            raw = file.read(32)
    if kind := next((kind for signature, kind in SIGNATURES.items() if raw.startswith(signature)), None):
        return f"begins as {kind} does, but its header is damaged"
    if raw[4:8] == b"ftyp":
        return "is in no image format that can be read (HEIC, AVIF or a film: save it as JPEG)"
    text = raw[:32].isascii() and not any(byte < 9 for byte in raw[:32])
    return f"is in no image format that can be read{' (it is text)' if text else ''}"


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


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow to RGB: transparency over white, 16 and 32 bits to 8."""
    if image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint32)
        # Microscopes and scanners of 12 bits write into files of 16, where all would be nearly black.
        whole = 4095 if values.max(initial=0) <= 4095 else 65535
        return _grey((values * 255 + whole // 2) // whole)
    if image.mode in ("I", "F"):
        return _grey(_eight_bits(np.asarray(image, dtype=np.float64)))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        solid = image.convert("RGBA")
        white = Image.new("RGBA", solid.size, "white")
        return Image.alpha_composite(white, solid).convert("RGB")
    return image.convert("RGB")


def _grey(values: NDArray[np.generic]) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _eight_bits(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring numbers without a fixed range to 0..255: by the range they seem to use, else from least to most."""
    values = np.nan_to_num(values, posinf=0, neginf=0)
    low, high = values.min(), values.max()
    if low == high and not 0 <= low <= 65535:
        return np.zeros_like(values)
    for top in (1.0, 255.0, 65535.0):
        if low >= 0 and high <= top:
            return np.rint(values * (255 / top))
    return np.rint((values - low) * (255 / (high - low)))


def _reason(error: Exception) -> str:
    """What is wrong, for people: Pillow's own words only where they were written to be read."""
    if isinstance(error, _Unreadable):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "leads to no file"
    if isinstance(error, OSError) and error.errno == ELOOP:
        return "is a link that leads in a circle"
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {PIXEL_LIMIT / 1e6:.0f} million pixels"
    if isinstance(error, MemoryError):
        return "needs more memory than there is"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be opened ({error.strerror.lower()})"
    said = readable(str(error)).rstrip(".")
    if isinstance(error, EOFError) or "truncated" in said.lower():
        return "cannot be decoded (the file is cut short)"
    if "text chunk" in said.lower() or "MAX_TEXT" in said:
        return "cannot be decoded (it carries more text than an image should)"
    spoken = isinstance(error, OSError | SyntaxError | ValueError) and said
    if any(word in said for word in ("decoder", "literal", "b'", 'b"')):  # of its own code, or bytes of the file
        spoken = False
    return f"cannot be decoded (the file is damaged{f': {said}' if spoken else ''})"
