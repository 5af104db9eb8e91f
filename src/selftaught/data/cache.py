"""Decode cache: the images of a reader as uint8 squares of one size in one file, read through a memory map.

A cache is a folder `<key>` with `images.npy` (N, 3, S, S), `content.npy` (N,), `meta.json` and, for each dense target,
a file such as `depth.npy` (N, C, S, S). The key is a digest of the content, so a changed file has a new key. A cache is
written to a `<key>.part-*` folder under a lock and renamed once it is complete: after a crash the incomplete folder is
never read, and the next build removes it. A second process waits for the first.

A damaged cache is rebuilt. The list of its images has a checksum, and so have the pixels; that of the pixels is
verified up to `CHECKED` bytes, beyond which only header and length are compared.

Not handled: removing old caches (always safe to do by hand), and files truncated while they are read.
"""

import errno
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from selftaught.data.arrays import ArrayFile, is_valid_array, read_ids, write_ids
from selftaught.data.brightness import NOMINAL, Ranges
from selftaught.data.dense import dense_names, stored_bytes
from selftaught.data.parallel import DecodedImage, decode_usable
from selftaught.data.reader import Indices, Reader
from selftaught.errors import UserError

FORMAT = 3
"""Format version, part of every key: increase it when the result of decoding changes."""
DENSE_FORMAT = 1
"""The same for dense targets, part of the keys of sources that have some."""


@dataclass(frozen=True)
class Decoded:
    """The contents of a cache."""

    key: str
    images: NDArray[np.uint8]
    """(N, 3, S, S), a read-only memory map."""
    indices: Indices
    """(N,) ascending indices of these images in the reader."""
    skipped: tuple[tuple[int, str], ...]
    """Index in the reader and reason of each image that could not be decoded."""
    content_ids: NDArray[np.int64]
    """(N,) digests of the encoded images, see `content_id`."""
    dense: Mapping[str, NDArray[np.generic]] = field(default_factory=dict)
    """Dense targets by name: (N, C, S, S) in the types of `dense.STORED`, read-only memory maps."""


def decode_cached(
    reader: Reader,
    side: int,
    chosen: Indices | None = None,
    folder: Path | None = None,
    ranges: Ranges = NOMINAL,
) -> Decoded:
    """Decode images to squares, or load them from the cache.

    Args:
        reader: the images.
        side: side of the squares in pixels.
        chosen: ascending indices of the images to decode; None for all.
        folder: folder of all caches; None for `cache_folder()`.
        ranges: value ranges of the whole source, for images other than 8-bit ones.

    Raises:
        UserError: the folder cannot be written, the disk is full, or the images change during decoding.
    """
    indices = np.arange(len(reader)) if chosen is None else chosen
    content = reader.fingerprint_of(indices)
    names = dense_names(reader)
    key = cache_key(reader, side, chosen, ranges, content)
    folder = folder or cache_folder()
    try:
        if cached := _read(folder / key, side, names):
            return cached
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            if cached := _read(folder / key, side, names):  # built by another process in the meantime
                return cached
            _build(reader, side, indices, ranges, folder / key, content)
    except OSError as error:
        raise storage_error(error, folder, len(indices) * image_bytes(names, side)) from error
    written = _read(folder / key, side, names)
    assert written, "a cache that was just written can be read"
    return written


def cache_key(reader: Reader, side: int | None, chosen: Indices | None, ranges: Ranges, content: str) -> str:
    """Key of the decoded images of a reader.

    Args:
        reader: the images.
        side: side of the squares in pixels; None for what does not depend on it.
        chosen: see `decode_cached`.
        ranges: see `decode_cached`.
        content: digest of these images, `Reader.fingerprint_of`.
    """
    digest = hashlib.blake2b(f"{FORMAT} {side} {content} {chosen is None} {ranges}".encode(), digest_size=16)
    if names := dense_names(reader):
        digest.update(f"{DENSE_FORMAT} {names} {reader.conventions}".encode())
    indices = np.arange(len(reader)) if chosen is None else chosen
    digest.update(indices.astype(np.int64).tobytes())
    return digest.hexdigest()


def cache_folder() -> Path:
    """Folder of caches and downloads: $SELFTAUGHT_CACHE, else $XDG_CACHE_HOME/selftaught, else ~/.cache/selftaught."""
    try:
        if chosen := os.environ.get("SELFTAUGHT_CACHE"):
            return Path(chosen).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selftaught"
    except RuntimeError as error:  # $HOME is not set and the user has no entry in the password database
        raise UserError("no home folder for the decoded images: set SELFTAUGHT_CACHE to a folder.") from error


def image_bytes(names: tuple[str, ...], side: int) -> int:
    """Bytes of an image and its dense targets."""
    return 3 * side**2 + stored_bytes(names, side)


def _read(target: Path, side: int, names: tuple[str, ...]) -> Decoded | None:
    """Load a cache; None if it does not exist or is damaged."""
    try:
        meta = json.loads((target / "meta.json").read_text(encoding="utf-8"))
        kept, skipped = meta["kept"], meta["skipped"]
        if meta["listed"] != _list_checksum(kept, skipped, meta["ranges"]):
            return None
        checksums = {"images": meta["pixels"], **{name: meta["dense"][name] for name in names}}
        if not all(is_valid_array(target, name, len(kept), side, checksum) for name, checksum in checksums.items()):
            return None
        content_ids = read_ids(target / "content.npy", len(kept), meta["content"])
        if content_ids is None:
            return None
        images = np.load(target / "images.npy", mmap_mode="r")
        dense = {name: np.load(target / f"{name}.npy", mmap_mode="r") for name in names}
        indices, failures = np.array(kept, dtype=np.int64), tuple((index, reason) for index, reason in skipped)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
    return Decoded(target.name, images, indices, failures, content_ids, dense)


def _list_checksum(kept: list[int], skipped: list[tuple[int, str]], ranges: dict[str, object]) -> int:
    """Checksum of the kept and skipped indices of a cache and of its value ranges."""
    return zlib.crc32(json.dumps([kept, skipped, ranges]).encode())


def _build(reader: Reader, side: int, indices: Indices, ranges: Ranges, target: Path, content: str) -> None:
    """Write a cache to a temporary folder and rename it once it is complete."""
    for stale in target.parent.glob(f"{target.name}.part-*"):  # under the lock, so its writer has ended
        shutil.rmtree(stale, ignore_errors=True)
    if shutil.disk_usage(target.parent).free < len(indices) * image_bytes(dense_names(reader), side):
        raise OSError(errno.ENOSPC, "not enough space")
    part = target.with_name(f"{target.name}.part-{os.getpid()}")
    part.mkdir()
    try:
        _write(reader, side, indices, ranges, part)
        if reader.fingerprint_of(indices) != content:  # the key would belong to the earlier content
            raise UserError(
                f"images in {reader.name} changed while they were decoded: repeat the command once no other process "
                "writes there."
            )
        shutil.rmtree(target, ignore_errors=True)  # a damaged one
        part.rename(target)
    except BaseException:  # Ctrl-C too
        shutil.rmtree(part, ignore_errors=True)
        raise


def _write(reader: Reader, side: int, indices: Indices, ranges: Ranges, part: Path) -> None:
    """Decode into a folder: the images and their targets, the list of images, and checksums of all."""
    names = ("images", *dense_names(reader))
    with ExitStack() as stack:
        arrays = {name: stack.enter_context(ArrayFile(part, name, len(indices), side)) for name in names}

        def append(result: DecodedImage) -> None:
            for name, values in {"images": result.image, **result.dense}.items():
                assert not isinstance(values, str)
                arrays[name].append(values)

        usable = decode_usable(reader, side, indices, ranges, "decoding", append)
        checksums = {name: array.finish(len(usable.indices)) for name, array in arrays.items()}
    kept, skipped = usable.indices.tolist(), list(usable.skipped)
    meta = {
        "kept": kept,
        "skipped": skipped,
        "listed": _list_checksum(kept, skipped, asdict(ranges)),
        "pixels": checksums.pop("images"),
        "dense": checksums,
        "content": write_ids(part / "content.npy", usable.content_ids),
        "ranges": asdict(ranges),
    }
    (part / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def storage_error(error: OSError, folder: Path, size: int) -> UserError:
    """The error for a cache of `size` bytes that cannot be written to a folder."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"the decoded images need {size / 2**20:,.0f} MB in {folder}, which is full: free some space, set "
            "SELFTAUGHT_CACHE to a folder on another disk, keep the images encoded (--storage encoded), or take fewer "
            "images (--limit)."
        )
    return UserError(
        f"cannot write decoded images to {folder} ({error.strerror or error}): set SELFTAUGHT_CACHE to another folder."
    )
