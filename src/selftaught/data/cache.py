"""Decode cache: the images of a reader as uint8 squares of one size in one file, read through a memory map.

A cache is a folder `<key>` with `images.npy` (N, 3, S, S), `content.npy` (N,) and `meta.json`. The key is a digest of
the content, so a changed file has a new key. A cache is written to a `<key>.part-*` folder under a lock and renamed
once it is complete: after a crash the incomplete folder is never read, and the next build removes it. A second process
waits for the first. Bytes are appended instead of written through a memory map, so that a full disk raises an error
instead of a crash (SIGBUS).

A damaged cache is rebuilt. The list of its images has a checksum, and so have the pixels; that of the pixels is
verified up to `CHECKED` bytes, beyond which only header and length are compared.

Not handled: removing old caches (always safe to do by hand), and files truncated while they are read.
"""

import errno
import hashlib
import io
import json
import os
import shutil
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from selftaught.data.brightness import NOMINAL, Ranges
from selftaught.data.decode import RGB, decode_with_id
from selftaught.data.reader import Indices, Raw, Reader
from selftaught.display.progress import Meter
from selftaught.errors import UserError

FORMAT = 3
"""Format version, part of every key: increase it when the result of decoding changes."""
CHECKED = 2**30
"""Largest size in bytes at which the checksum of the pixels is verified; takes a second at most."""
BLOCK = 16
"""Images per work item of a thread: enough to make the overhead negligible even for 32-pixel images."""


@dataclass(frozen=True)
class Decoded:
    """The contents of a cache."""

    key: str
    images: NDArray[np.uint8]
    """(N, 3, S, S), a read-only memory map."""
    kept: Indices
    """(N,) ascending indices of these images in the reader."""
    skipped: tuple[tuple[int, str], ...]
    """Index in the reader and reason of each image that could not be decoded."""
    content_ids: NDArray[np.int64]
    """(N,) digests of the encoded images, see `content_id`."""


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
    digest = hashlib.blake2b(f"{FORMAT} {side} {content} {chosen is None} {ranges}".encode(), digest_size=16)
    digest.update(indices.astype(np.int64).tobytes())
    key = digest.hexdigest()
    folder = folder or cache_folder()
    try:
        if cached := _read(folder / key, side):
            return cached
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            if cached := _read(folder / key, side):  # built by another process in the meantime
                return cached
            _build(reader, side, indices, ranges, folder / key, content)
    except OSError as error:
        raise _storage_error(error, folder, len(indices) * 3 * side**2) from error
    written = _read(folder / key, side)
    assert written, "a cache that was just written can be read"
    return written


def cache_folder() -> Path:
    """Folder of caches and downloads: $SELFTAUGHT_CACHE, else $XDG_CACHE_HOME/selftaught, else ~/.cache/selftaught."""
    try:
        if chosen := os.environ.get("SELFTAUGHT_CACHE"):
            return Path(chosen).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selftaught"
    except RuntimeError as error:  # $HOME is not set and the user has no entry in the password database
        raise UserError("no home folder for the decoded images: set SELFTAUGHT_CACHE to a folder.") from error


def _read(target: Path, side: int) -> Decoded | None:
    """Load a cache; None if it does not exist or is damaged."""
    try:
        meta = json.loads((target / "meta.json").read_text(encoding="utf-8"))
        kept, skipped = meta["kept"], meta["skipped"]
        if meta["listed"] != _list_checksum(kept, skipped, meta["ranges"]):
            return None
        with (target / "images.npy").open("rb") as file:
            _header(header := io.BytesIO(), len(kept), side)
            valid_header = file.read(header.tell()) == header.getvalue()
            size = os.fstat(file.fileno()).st_size - file.tell()
            if not valid_header or size != len(kept) * 3 * side**2:
                return None
            if size <= CHECKED and _checksum(file) != meta["pixels"]:
                return None
        content_ids = _read_ids(target / "content.npy", len(kept), meta["content"])
        if content_ids is None:
            return None
        images = np.load(target / "images.npy", mmap_mode="r")
        indices, failures = np.array(kept, dtype=np.int64), tuple((index, reason) for index, reason in skipped)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
    return Decoded(target.name, images, indices, failures, content_ids)


def _read_ids(path: Path, count: int, checksum: int) -> NDArray[np.int64] | None:
    """The content digests of a cache; None if damaged. The number of bytes read does not depend on the file."""
    with path.open("rb") as file:
        np.lib.format.write_array_header_1_0(header := io.BytesIO(), _ids_header(count))
        content = file.read(header.tell() + 8 * count + 1)
    start = header.getvalue()
    if not content.startswith(start) or len(content) != len(start) + 8 * count or zlib.crc32(content) != checksum:
        return None
    return np.frombuffer(content, "<i8", offset=len(start)).astype(np.int64)


def _write_ids(path: Path, content_ids: list[int]) -> int:
    """Write content digests and return the checksum of the file."""
    np.lib.format.write_array_header_1_0(file := io.BytesIO(), _ids_header(len(content_ids)))
    file.write(np.array(content_ids, dtype="<i8").tobytes())
    path.write_bytes(file.getvalue())
    return zlib.crc32(file.getvalue())


def _ids_header(count: int) -> dict[str, object]:
    """The header of `content.npy`."""
    return {"descr": "<i8", "fortran_order": False, "shape": (count,)}


def _list_checksum(kept: list[int], skipped: list[tuple[int, str]], ranges: dict[str, object]) -> int:
    """Checksum of the kept and skipped indices of a cache and of its value ranges."""
    return zlib.crc32(json.dumps([kept, skipped, ranges]).encode())


def _checksum(file: BinaryIO) -> int:
    """CRC-32 of a file from its current position."""
    checksum = 0
    while chunk := file.read(2**20):
        checksum = zlib.crc32(chunk, checksum)
    return checksum


def _build(reader: Reader, side: int, indices: Indices, ranges: Ranges, target: Path, content: str) -> None:
    """Write a cache to a temporary folder and rename it once it is complete."""
    for stale in target.parent.glob(f"{target.name}.part-*"):  # under the lock, so its writer has ended
        shutil.rmtree(stale, ignore_errors=True)
    if shutil.disk_usage(target.parent).free < len(indices) * 3 * side**2:
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
    """Decode into a folder: the images, the list of images, and checksums of both."""
    kept: list[int] = []
    skipped: list[tuple[int, str]] = []
    content_ids: list[int] = []
    pixels = 0
    with (part / "images.npy").open("wb") as file, Meter(f"decoding {reader.name}", len(indices)) as meter:
        _header(file, len(indices), side)
        results = _decode_all(reader, side, indices, ranges)
        for index, (result, identity) in zip(indices.tolist(), results, strict=True):
            if isinstance(result, str):
                skipped.append((index, result))
            else:
                kept.append(index)
                content_ids.append(identity)
                file.write(result.data)
                pixels = zlib.crc32(result.data, pixels)
            meter.advance()
        file.seek(0)
        _header(file, len(kept), side)
        file.flush()
        os.fsync(file.fileno())
    meta = {
        "kept": kept,
        "skipped": skipped,
        "listed": _list_checksum(kept, skipped, asdict(ranges)),
        "pixels": pixels,
        "content": _write_ids(part / "content.npy", content_ids),
        "ranges": asdict(ranges),
    }
    (part / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _header(file: BinaryIO, count: int, side: int) -> None:
    """Write the header of an .npy file; numpy pads it, so that the first axis can be changed later."""
    fields = {"descr": "|u1", "fortran_order": False, "shape": (count, 3, side, side)}
    np.lib.format.write_array_header_1_0(file, fields)


def _decode_all(
    reader: Reader, side: int, indices: Indices, ranges: Ranges = NOMINAL
) -> Iterator[tuple[RGB | str, int]]:
    """Decode in threads (Pillow releases the interpreter lock), in order, a few blocks ahead."""
    raws = reader.stream(indices)
    workers = threads()
    pending: deque[Future[list[tuple[RGB | str, int]]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        while block := list(islice(raws, BLOCK)):
            pending.append(pool.submit(_decode_block, block, side, ranges))
            if len(pending) > 2 * workers:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()


def _decode_block(block: list[Raw], side: int, ranges: Ranges) -> list[tuple[RGB | str, int]]:
    return [decode_with_id(raw, side, ranges) for raw in block]


def threads() -> int:
    """Number of CPUs available to this process, at most 16."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, 16)


def _storage_error(error: OSError, folder: Path, size: int) -> UserError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"the decoded images need {size / 2**20:,.0f} MB in {folder}, which is full: free some space, set "
            f"SELFTAUGHT_CACHE to a folder on another disk, or take fewer images (--limit)."
        )
    return UserError(
        f"cannot write decoded images to {folder} ({error.strerror or error}): set SELFTAUGHT_CACHE to another folder."
    )
