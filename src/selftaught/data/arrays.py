"""Arrays of images in .npy files: appended to one image at a time, and checked when they are opened.

Bytes are appended instead of written through a memory map, so that a full disk raises an error instead of a crash
(SIGBUS).
"""

import io
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from selftaught.data.dense import STORED

CHECKED = 2**30
"""Largest size in bytes at which the checksum of the pixels is verified; takes a second at most."""
ARRAYS: Mapping[str, tuple[int, type[np.generic]]] = {"images": (3, np.uint8), **STORED}
"""Channels and type of each array of a cache."""


def is_valid_array(target: Path, name: str, count: int, side: int, checksum: int) -> bool:
    """Whether an array of a cache has the expected header, length and, up to `CHECKED` bytes, checksum."""
    with (target / f"{name}.npy").open("rb") as file:
        header = _header(name, count, side)
        valid_header = file.read(len(header)) == header
        size = os.fstat(file.fileno()).st_size - file.tell()
        channels, kind = ARRAYS[name]
        if not valid_header or size != count * channels * side**2 * np.dtype(kind).itemsize:
            return False
        return size > CHECKED or _checksum(file) == checksum


def read_ids(path: Path, count: int, checksum: int) -> NDArray[np.int64] | None:
    """The content digests of a cache; None if damaged. The number of bytes read does not depend on the file."""
    with path.open("rb") as file:
        np.lib.format.write_array_header_1_0(header := io.BytesIO(), _ids_header(count))
        content = file.read(header.tell() + 8 * count + 1)
    start = header.getvalue()
    if not content.startswith(start) or len(content) != len(start) + 8 * count or zlib.crc32(content) != checksum:
        return None
    return np.frombuffer(content, "<i8", offset=len(start)).astype(np.int64)


def write_ids(path: Path, content_ids: NDArray[np.int64]) -> int:
    """Write content digests and return the checksum of the file."""
    np.lib.format.write_array_header_1_0(file := io.BytesIO(), _ids_header(len(content_ids)))
    file.write(content_ids.astype("<i8").tobytes())
    path.write_bytes(file.getvalue())
    return zlib.crc32(file.getvalue())


def _ids_header(count: int) -> dict[str, object]:
    """The header of `content.npy`."""
    return {"descr": "<i8", "fortran_order": False, "shape": (count,)}


def _checksum(file: BinaryIO) -> int:
    """CRC-32 of a file from its current position."""
    checksum = 0
    while chunk := file.read(2**20):
        checksum = zlib.crc32(chunk, checksum)
    return checksum


class ArrayFile:
    """An .npy file that is appended to, one image at a time.

    Args:
        folder: its folder.
        name: name of the array, a key of `ARRAYS`.
        most: maximum number of images.
        side: their side in pixels.
    """

    def __init__(self, folder: Path, name: str, most: int, side: int) -> None:
        self._name, self._side, self._checksum = name, side, 0
        self._file = (folder / f"{name}.npy").open("wb")
        self._file.write(_header(name, most, side))

    def __enter__(self) -> Self:
        return self

    def append(self, values: NDArray[np.generic]) -> None:
        """Append an image: (C, S, S)."""
        content = np.ascontiguousarray(values).data
        self._file.write(content)
        self._checksum = zlib.crc32(content, self._checksum)

    def finish(self, count: int) -> int:
        """Write the actual number of images, flush to the disk, and return the checksum."""
        self._file.seek(0)
        self._file.write(_header(self._name, count, self._side))
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._checksum

    def __exit__(self, *error: object) -> None:
        self._file.close()


def _header(name: str, count: int, side: int) -> bytes:
    """The header of an .npy file; numpy pads it, so that the first axis can be changed later."""
    channels, kind = ARRAYS[name]
    fields = {"descr": np.dtype(kind).str, "fortran_order": False, "shape": (count, channels, side, side)}
    np.lib.format.write_array_header_1_0(stream := io.BytesIO(), fields)
    return stream.getvalue()
