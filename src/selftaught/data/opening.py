"""Open images: read the header of a file, of bytes or of pixels, or give the reason why it cannot be read.

Formats are tried one by one instead of by `Image.open`, whose warnings about large images would reach the host process
(or stop it, where warnings are errors) and whose reasons for refusing a file are lost.
"""

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import IO

import numpy as np
from PIL import IcoImagePlugin, Image, TiffImagePlugin

from selftaught.data.reader import Raw

Image.init()  # registers every format; WebP, AVIF and JPEG 2000 are not part of every build of Pillow
FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "JPEG2000", "ICO", "AVIF")
    if name in Image.OPEN
)
"""Only formats that Pillow decodes by itself: EPS, for one, would start another program."""
SIGNATURES = {
    b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP", b"RIFF": "WebP", b"II*\0": "TIFF",
    b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF",
}  # fmt: skip
"""First bytes of each format, to distinguish a damaged image from a file that is no image."""
PIXEL_LIMIT = 178_956_970
"""Pixels above which an image is not decoded: Pillow's default bound against decompression bombs."""


class Unreadable(Exception):
    """Carries the reason why an image cannot be decoded."""


@contextmanager
def open_image(raw: Raw) -> Iterator[Image.Image]:
    """Read the header of an image; its pixels can be loaded until the context ends.

    Raises:
        Unreadable: it is empty, no regular file, in no known format or too large.
    """
    if isinstance(raw, str):
        raise Unreadable(raw)
    if isinstance(raw, Path):
        require_content(raw)
        with raw.open("rb") as file:
            yield _limited(_identified(file))
    elif not len(raw) or (isinstance(raw, np.ndarray) and not raw.size):
        raise Unreadable("is empty")
    else:
        yield Image.fromarray(raw) if isinstance(raw, np.ndarray) else _limited(_identified(io.BytesIO(raw)))


def require_content(path: Path) -> int:
    """The size of a regular file in bytes.

    Raises:
        Unreadable: it is empty, or no regular file (opening a pipe would wait forever).
    """
    found = path.stat()
    if not S_ISREG(found.st_mode):
        raise Unreadable("is a folder, a pipe, a socket or a device, not a file")
    if not found.st_size:
        raise Unreadable("is empty")
    return found.st_size


def _identified(stream: IO[bytes]) -> Image.Image:
    """Open with the first format that accepts the file."""
    start = stream.read(32)
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        with suppress(SyntaxError, IndexError, TypeError, struct.error):  # what Pillow raises for "not mine"
            accepted = accept is None or accept(start[:16])
            if accepted and not isinstance(accepted, str):  # a text says that this build of Pillow lacks the decoder
                stream.seek(0)
                return _inner(factory(stream, ""))
    raise Unreadable(_unidentified(stream, start))


def _inner(image: Image.Image) -> Image.Image:
    """The image inside of an icon: its size may be far from the one that the icon's header claims."""
    if isinstance(image, IcoImagePlugin.IcoImageFile):
        return image.ico.getimage(image.size)
    return image


def _limited(image: Image.Image) -> Image.Image:
    if image.width * image.height > PIXEL_LIMIT:
        raise Unreadable(f"has more than {PIXEL_LIMIT / 1e6:.0f} million pixels ({image.width} x {image.height})")
    return image


def _unidentified(stream: IO[bytes], start: bytes) -> str:
    """The reason for a file that no format accepts."""
    kind = next((kind for signature, kind in SIGNATURES.items() if start.startswith(signature)), None)
    if kind == "TIFF" and (layout := _tiff_layout(stream)):
        return f"is a TIFF of a kind that Pillow cannot decode ({layout}): save it as 8-bit RGB"
    if kind:
        return f"begins as {kind} does, but its header is damaged or of a kind that Pillow cannot decode"
    if start[4:8] == b"ftyp":
        return "is in no image format that can be read (HEIC, AVIF or a film: save it as JPEG)"
    text = start.isascii() and not any(byte < 9 for byte in start)
    return f"is in no image format that can be read{' (it is text)' if text else ''}"


def _tiff_layout(stream: IO[bytes]) -> str:
    """The layout of a TIFF's pixels, such as "5 channels of 16 bits"; empty where its header is damaged."""
    try:
        stream.seek(0)
        header = stream.read(16)
        header = header if header[2] == 43 or header[3] == 43 else header[:8]
        tags = TiffImagePlugin.ImageFileDirectory_v2(header)
        stream.seek(tags.next)
        tags.load(stream)
        channels, bits = int(tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)), tags[TiffImagePlugin.BITSPERSAMPLE]
        kinds = {2: "signed ", 3: "floating-point ", 5: "complex ", 6: "complex "}
        kind = kinds.get(np.atleast_1d(tags.get(TiffImagePlugin.SAMPLEFORMAT, 1))[0], "")
        depth = int(np.atleast_1d(bits)[0])
        compression = tags.get(TiffImagePlugin.COMPRESSION, 1)
    except Exception:  # damaged tags raise nearly everything
        return ""
    packed = "" if compression in TiffImagePlugin.COMPRESSION_INFO else f", compression {compression}"
    return f"{channels} channel{'s' * (channels != 1)} of {depth} {kind}bits{packed}"
