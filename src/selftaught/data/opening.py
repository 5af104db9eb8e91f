"""Open images: read the header of a file, bytes or pixels, or raise with the reason why it cannot be read.

Formats are tried one by one instead of with `Image.open`, which emits warnings about large images in the host process
(exceptions if warnings are errors) and does not report why a file was rejected.
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

Image.init()  # registers every format; some builds of Pillow lack WebP, AVIF or JPEG 2000
FORMATS = tuple(
    name
    for name in ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "JPEG2000", "ICO", "AVIF")
    if name in Image.OPEN
)
"""Formats that Pillow decodes itself; EPS, for example, would start another program."""
SIGNATURES = {
    b"\xff\xd8": "JPEG", b"\x89PNG": "PNG", b"GIF8": "GIF", b"BM": "BMP", b"RIFF": "WebP", b"II*\0": "TIFF",
    b"MM\0*": "TIFF", b"II+\0": "TIFF", b"MM\0+": "TIFF",
}  # fmt: skip
"""First bytes of each format, to distinguish a damaged image from a file that is not an image."""
PIXEL_LIMIT = 178_956_970
"""Maximum number of pixels of an image: Pillow's default limit against decompression bombs."""


class Unreadable(Exception):
    """An image cannot be decoded; the message is the reason."""


@contextmanager
def open_image(raw: Raw) -> Iterator[Image.Image]:
    """Open an image and read its header; its pixels can be loaded until the context ends.

    Raises:
        Unreadable: it is empty, not a regular file, in no supported format, or too large.
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
        Unreadable: it is empty, or not a regular file (opening a pipe would block).
    """
    status = path.stat()
    if not S_ISREG(status.st_mode):
        raise Unreadable("is a folder, a pipe, a socket or a device, not a file")
    if not status.st_size:
        raise Unreadable("is empty")
    return status.st_size


def _identified(stream: IO[bytes]) -> Image.Image:
    """Open with the first format that accepts the file."""
    start = stream.read(32)
    for name in FORMATS:
        factory, accept = Image.OPEN[name]
        with suppress(
            SyntaxError, IndexError, TypeError, struct.error
        ):  # raised by Pillow plugins for files of other formats
            accepted = accept is None or accept(start[:16])
            if accepted and not isinstance(accepted, str):  # a string means that this build of Pillow lacks the decoder
                stream.seek(0)
                return _inner(factory(stream, ""))
    raise Unreadable(_unidentified(stream, start))


def _inner(image: Image.Image) -> Image.Image:
    """The image inside an icon file, because its size can differ from the one in the icon header."""
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
        return f"is a TIFF that Pillow cannot decode ({layout}): save it as 8-bit RGB"
    if kind:
        return f"begins like {kind}, but its header is damaged or not supported by Pillow"
    if start[4:8] == b"ftyp":
        return "is not in a supported image format (HEIC, AVIF or a video: save it as JPEG)"
    text = start.isascii() and not any(byte < 9 for byte in start)
    return f"is not in a supported image format{' (it is text)' if text else ''}"


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
    except Exception:  # damaged tags raise almost any exception
        return ""
    packed = "" if compression in TiffImagePlugin.COMPRESSION_INFO else f", compression {compression}"
    return f"{channels} channel{'s' * (channels != 1)} of {depth} {kind}bits{packed}"
