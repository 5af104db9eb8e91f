"""Images kept encoded: decoded whenever a batch needs them, by threads, to the pixels that the decode cache has.

Which images can be decoded is determined once, in a pass over all of them, and kept in the cache folder as `<key>.npz`
(16 bytes per image). Shards of `selftaught shard` contain valid images only and need no such pass. Every image is
compared with its digest when it is decoded, so one that changed ends a run instead of changing it.

Memory is that of a batch, and of one image for each thread while it is decoded.
"""

import json
import os
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from selftaught.augment.warp import to_device
from selftaught.data.brightness import Ranges
from selftaught.data.cache import ARRAYS, cache_key, storage_error
from selftaught.data.parallel import BLOCK, decode_all, decode_one, threads
from selftaught.data.reader import Indices, Reader, readable
from selftaught.data.stored import Pixels
from selftaught.display.progress import Meter
from selftaught.errors import UserError


@dataclass(frozen=True)
class Checked:
    """Which images of a reader can be decoded."""

    indices: Indices
    """(N,) ascending indices of these images in the reader."""
    skipped: tuple[tuple[int, str], ...]
    """Index in the reader and reason of each image that cannot be decoded."""
    content_ids: Indices
    """(N,) digests of the encoded images, see `content_id`."""


def check_cached(
    reader: Reader, side: int, chosen: Indices | None, folder: Path, ranges: Ranges, content: str
) -> Checked:
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
        return Checked(indices, (), known[indices])
    # The same at every side: reduced-scale decoding of a JPEG reads all of it as well.
    key = cache_key(reader, None, chosen, ranges, content)
    path = folder / f"{key}.npz"
    try:
        if checked := _read(path, indices):
            return checked
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            if checked := _read(path, indices):  # by another process in the meantime
                return checked
            checked = _check(reader, side, indices, ranges)
            if reader.fingerprint_of(indices) != content:
                raise UserError(
                    f"images in {reader.name} changed while they were checked: repeat the command once no other "
                    "process writes there."
                )
            _write(path, checked)
    except OSError as error:
        raise storage_error(error, folder, 16 * len(indices)) from error
    return checked


def _check(reader: Reader, side: int, indices: Indices, ranges: Ranges) -> Checked:
    kept: list[int] = []
    skipped: list[tuple[int, str]] = []
    content_ids: list[int] = []
    with Meter(f"checking {reader.name}", len(indices)) as meter:
        for index, result in zip(indices.tolist(), decode_all(reader, side, indices, ranges), strict=True):
            if isinstance(result.image, str):
                skipped.append((index, result.image))
            else:
                kept.append(index)
                content_ids.append(result.content_id)
            meter.advance()
    return Checked(np.array(kept, np.int64), tuple(skipped), np.array(content_ids, np.int64))


def _write(path: Path, checked: Checked) -> None:
    skipped = np.frombuffer(json.dumps(checked.skipped).encode(), np.uint8)
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        with part.open("wb") as file:
            np.savez(file, kept=checked.indices, content_ids=checked.content_ids, skipped=skipped)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:  # Ctrl-C too
        part.unlink(missing_ok=True)
        raise


def _read(path: Path, indices: Indices) -> Checked | None:
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
    return Checked(kept, failures, content_ids)


class Encoded(Pixels):
    """The images of a reader, or one of their dense targets, decoded on the fly.

    Args:
        reader: the images.
        side: side of the squares in pixels.
        ranges: see `decode`.
        checked: the images that can be decoded; row i is the i-th of them.
        target: name of the dense target; "images" for the images themselves.
    """

    ahead = True

    def __init__(self, reader: Reader, side: int, ranges: Ranges, checked: Checked, target: str = "images") -> None:
        self.side = side
        self._reader, self._ranges, self._checked, self._target = reader, ranges, checked, target

    def take(self, rows: Tensor, device: torch.device) -> Tensor:
        """See `Pixels`.

        Raises:
            UserError: an image is not the one that it was when the source was opened.
        """
        channels, kind = ARRAYS[self._target]
        distinct, place = np.unique(rows.numpy(), return_inverse=True)  # ascending, as readers are fastest
        decoded = np.empty((len(distinct), channels, self.side, self.side), kind)
        size = max(1, min(BLOCK, -(-len(distinct) // threads())))
        parts = [slice(start, start + size) for start in range(0, len(distinct), size)]
        for done in [_workers().submit(self._decode, distinct[part], decoded[part]) for part in parts]:
            done.result()
        images = torch.from_numpy(decoded)
        out = torch.empty((len(rows), *images.shape[1:]), dtype=images.dtype, pin_memory=device.type == "cuda")
        return to_device(torch.index_select(images, 0, torch.from_numpy(place), out=out), device)

    def _decode(self, rows: Indices, out: NDArray[np.generic]) -> None:
        """Decode the images at some rows into an array."""
        indices, of_image = self._checked.indices[rows], self._target == "images"
        raws = self._reader.stream(indices)
        targets = Reader.stream_dense(self._reader, indices) if of_image else self._reader.stream_dense(indices)
        for place, (raw, own) in enumerate(zip(raws, targets, strict=True)):
            result = decode_one(raw, own, self.side, self._ranges, self._reader.conventions)
            if isinstance(result.image, str) or result.content_id != self._checked.content_ids[rows[place]]:
                title = readable(self._reader.title(int(indices[place])))
                why = f": it {result.image}" if isinstance(result.image, str) else ""
                raise UserError(
                    f"{title} in {self._reader.name} is not the image that was there when the source was opened{why}; "
                    "restore it, then continue with --resume."
                )
            out[place] = result.image if of_image else result.dense[self._target]


@cache
def _workers() -> ThreadPoolExecutor:
    """The threads that decode, shared by all sources of this process."""
    return ThreadPoolExecutor(threads(), "decode")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_workers.cache_clear)  # the threads do not exist in a forked child
