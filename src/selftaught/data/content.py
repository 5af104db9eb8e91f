"""Content identity: a digest of each encoded image, independent of its name, label and stored size."""

import hashlib
from pathlib import Path

import numpy as np

from selftaught.data.opening import require_content
from selftaught.data.reader import Raw

HASHED = 2**26
"""Maximum number of bytes hashed; for a longer image also its length. Files up to this size are read once."""


def loaded(raw: Raw) -> Raw:
    """Read a file of at most `HASHED` bytes into memory; return everything else unchanged.

    Raises:
        Unreadable: the file is empty or not a regular file.
        OSError: the file cannot be read.
    """
    if isinstance(raw, Path) and require_content(raw) <= HASHED:
        return raw.read_bytes()
    return raw


def content_id(raw: Raw) -> int:
    """A 64-bit digest of the encoded bytes of an image, or of the shape and values of an array, as a signed integer.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.blake2b(digest_size=8)
    if isinstance(raw, np.ndarray):
        digest.update(f"{raw.shape}".encode())
        digest.update(np.ascontiguousarray(raw).data)
    else:
        start, size = _start(raw)
        digest.update(start)
        if size > HASHED:
            digest.update(f"{size}".encode())
    return int.from_bytes(digest.digest(), "little", signed=True)


def _start(raw: Path | bytes | str) -> tuple[bytes | memoryview, int]:
    """The first `HASHED` bytes of an encoded image, and its total size in bytes."""
    if isinstance(raw, Path):
        with raw.open("rb") as file:
            return file.read(HASHED), raw.stat().st_size
    content = raw if isinstance(raw, bytes) else raw.encode()
    return memoryview(content)[:HASHED], len(content)
