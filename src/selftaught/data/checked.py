"""Which images can be decoded, determined once and kept in the cache folder as `<key>.npz` (16 bytes per image).

Shards of `selftaught shard` contain valid images only and need no such pass.
"""

import json
import zipfile
from pathlib import Path

import numpy as np
from filelock import FileLock

from selftaught.data.atomic import replacing
from selftaught.data.brightness import Ranges
from selftaught.data.cache import cache_key, storage_error
from selftaught.data.parallel import Usable, decode_usable
from selftaught.data.reader import Indices, Reader
from selftaught.errors import UserError


def check_cached(
    reader: Reader, side: int, chosen: Indices | None, folder: Path, ranges: Ranges, content: str
) -> Usable:
    """Determine which images can be decoded, or load it from the cache.

    Args:
        reader: the images.
        side: side in pixels at which they are decoded.
        chosen: ascending indices of the images; None for all.
        folder: folder of all caches.
        ranges: value ranges of the whole source, for images other than 8-bit ones.
        content: digest of these images, `Reader.fingerprint_of`.

    Raises:
        UserError: the folder cannot be written, or the images change in the meantime.
    """
    indices = np.arange(len(reader)) if chosen is None else chosen
    if (known := reader.content_ids()) is not None:
        return Usable(indices, (), known[indices])
    # The same at every side: reduced-scale decoding of a JPEG reads all of it as well.
    key = cache_key(reader, None, chosen, ranges, content)
    path = folder / f"{key}.npz"
    try:
        if usable := _read(path, indices):
            return usable
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            if usable := _read(path, indices):  # by another process in the meantime
                return usable
            usable = decode_usable(reader, side, indices, ranges, "checking")
            if reader.fingerprint_of(indices) != content:
                raise UserError(
                    f"images in {reader.name} changed while they were checked: repeat the command once no other "
                    "process writes there."
                )
            _write(path, usable)
    except OSError as error:
        raise storage_error(error, folder, 16 * len(indices)) from error
    return usable


def _write(path: Path, usable: Usable) -> None:
    skipped = np.frombuffer(json.dumps(usable.skipped).encode(), np.uint8)
    with replacing(path) as part, part.open("wb") as file:
        np.savez(file, kept=usable.indices, content_ids=usable.content_ids, skipped=skipped)


def _read(path: Path, indices: Indices) -> Usable | None:
    """Load what was determined for the images at `indices`; None if it does not exist or is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:  # a zip file with checksums
            kept, content_ids, skipped = (arrays[name] for name in ("kept", "content_ids", "skipped"))
        failures = tuple((int(index), str(reason)) for index, reason in json.loads(skipped.tobytes()))
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError, zipfile.BadZipFile):
        return None
    lost = np.array([index for index, _ in failures], np.int64)
    complete = kept.dtype == content_ids.dtype == np.int64 and kept.shape == content_ids.shape
    if not complete or not np.array_equal(np.sort(np.concatenate([kept, lost])), indices):
        return None
    return Usable(kept, failures, content_ids)
