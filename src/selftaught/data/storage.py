"""How the images of a source are stored: decoded in the cache, or encoded as they are and decoded on the fly.

Both give the same pixels, the same skipped images and the same fingerprint, so a run may be resumed with the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from selftaught.data.brightness import Ranges
from selftaught.data.cache import cache_folder, cache_key, decode_cached, image_bytes
from selftaught.data.checked import check_cached
from selftaught.data.dense import dense_names
from selftaught.data.encoded import Encoded
from selftaught.data.reader import Indices, Reader
from selftaught.data.stored import Pixels, Resident
from selftaught.display.progress import announce
from selftaught.errors import unknown

Storage = Literal["auto", "decoded", "encoded"]
"""auto: decoded up to `DECODED_LIMIT` bytes."""
STORAGES: tuple[Storage, ...] = ("auto", "decoded", "encoded")
DECODED_LIMIT = 32 * 2**30
"""Largest size in bytes of the decoded images of a source for which `auto` chooses to decode them once."""


@dataclass(frozen=True)
class Prepared:
    """Images ready to be taken by row."""

    key: str
    """Identifies the pixels; it does not depend on the storage."""
    indices: Indices
    """(N,) ascending indices in the reader of the images that can be decoded; row i is the i-th of them."""
    skipped: tuple[tuple[int, str], ...]
    """Index in the reader and reason of each image that cannot be decoded."""
    content_ids: Indices
    """(N,) digests of the encoded images, see `content_id`."""
    images: Pixels
    dense: Mapping[str, Pixels]
    """Dense targets by name."""


def prepare(
    reader: Reader, side: int, chosen: Indices | None, folder: Path | None, ranges: Ranges, storage: Storage
) -> Prepared:
    """Decode images to the cache, or determine which ones can be decoded on the fly.

    Args:
        reader: the images.
        side: side of the squares in pixels.
        chosen: ascending indices of the images; None for all.
        folder: folder of all caches; None for `cache_folder()`.
        ranges: value ranges of the whole source, for images other than 8-bit ones.
        storage: how they are stored.

    Raises:
        UserError: the folder cannot be written, the disk is full, or the images change in the meantime.
    """
    if storage not in STORAGES:
        raise unknown("storage", storage, STORAGES)
    names, folder = dense_names(reader), folder or cache_folder()
    count = len(reader) if chosen is None else len(chosen)
    if storage == "decoded" or (storage == "auto" and count * image_bytes(names, side) <= DECODED_LIMIT):
        cached = decode_cached(reader, side, chosen, folder, ranges)
        dense = {name: Resident(array) for name, array in cached.dense.items()}
        return Prepared(cached.key, cached.indices, cached.skipped, cached.content_ids, Resident(cached.images), dense)
    if note := reader.access_note():
        announce(f"{reader.name}: {note}")
    content = reader.fingerprint_of(np.arange(count) if chosen is None else chosen)
    usable = check_cached(reader, side, chosen, folder, ranges, content)
    key = cache_key(reader, side, chosen, ranges, content)
    pixels = {name: Encoded(reader, side, ranges, usable, name) for name in ("images", *names)}
    images = pixels.pop("images")
    return Prepared(key, usable.indices, usable.skipped, usable.content_ids, images, pixels)
