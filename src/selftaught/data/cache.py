"""The decode cache: the images of a reader as uint8 of one size in one file, made once, read through a memory map.

A cache is a folder `<key>` with `images.npy` (N, 3, S, S), `content.npy` (N,) and `meta.json`. Its key is a digest of
the content, so a changed file is a new key. It is written into a `<key>.part-*` folder, under a lock, and renamed when
it is whole: a process that dies leaves a part that nobody reads and the next builder removes; of two processes the
second waits. Bytes are appended rather than written through a map, so that a full disk is an error and not a crash
(SIGBUS).
A damaged cache is built anew: the list of what is in it carries a checksum, and so do the pixels, which is looked at
while reading them all is quick; of larger ones only header and length are.

Not here: removing old caches, which is always safe, and protection from a file that is cut short while it is read.
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
"""Part of every key: raise it when decoding changes what comes out."""
CHECKED = 2**30
"""Bytes of pixels up to which their checksum is looked at: a second at most, and what is read is wanted anyway."""
BLOCK = 16
"""Images a thread decodes at a time: enough that handing over costs nothing beside 32-pixel images."""


@dataclass(frozen=True)
class Decoded:
    """What a cache holds."""

    key: str
    images: NDArray[np.uint8]
    """(N, 3, S, S), a read-only memory map."""
    kept: Indices
    """(N,) ascending: which of the reader's images these are."""
    skipped: tuple[tuple[int, str], ...]
    """Which of the reader's images could not be decoded, and why."""
    content_ids: NDArray[np.int64]
    """(N,) digests of the encoded images, see `content_id`."""


def decode_cached(
    reader: Reader,
    side: int,
    chosen: Indices | None = None,
    folder: Path | None = None,
    ranges: Ranges = NOMINAL,
) -> Decoded:
    """Decode images to squares, or find that this was done before.

    Args:
        reader: where they come from.
        side: pixels along the squares.
        chosen: ascending indices of the images wanted; None for all.
        folder: where caches are; None for `cache_folder()`.
        ranges: value ranges of the whole source, for images that are not 8-bit.

    Raises:
        UserError: the folder cannot be written, the disk is full, or the images change meanwhile.
    """
    indices = np.arange(len(reader)) if chosen is None else chosen
    content = reader.fingerprint_of(indices)
    digest = hashlib.blake2b(f"{FORMAT} {side} {content} {chosen is None} {ranges}".encode(), digest_size=16)
    digest.update(indices.astype(np.int64).tobytes())
    key = digest.hexdigest()
    folder = folder or cache_folder()
    try:
        if found := _read(folder / key, side):
            return found
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f"{key}.lock"):
            if found := _read(folder / key, side):  # another process was faster
                return found
            _build(reader, side, indices, ranges, folder / key, content)
    except OSError as error:
        raise _storage_error(error, folder, len(indices) * 3 * side**2) from error
    found = _read(folder / key, side)
    assert found, "what was just written can be read"
    return found


def cache_folder() -> Path:
    """Where caches and downloads go: $SELFTAUGHT_CACHE, else $XDG_CACHE_HOME/selftaught, else ~/.cache/selftaught."""
    try:
        if chosen := os.environ.get("SELFTAUGHT_CACHE"):
            return Path(chosen).expanduser()
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "selftaught"
    except RuntimeError as error:  # $HOME is not set and the user has no entry in the password database
        raise UserError(
            "this user has no home folder to keep decoded images in: set SELFTAUGHT_CACHE to a folder."
        ) from error


def _read(target: Path, side: int) -> Decoded | None:
    """A whole cache, or None where there is none or it was damaged since."""
    try:
        meta = json.loads((target / "meta.json").read_text(encoding="utf-8"))
        kept, skipped = meta["kept"], meta["skipped"]
        if meta["listed"] != _listed(kept, skipped, meta["ranges"]):
            return None
        with (target / "images.npy").open("rb") as file:
            _header(header := io.BytesIO(), len(kept), side)
            whole = file.read(header.tell()) == header.getvalue()
            size = os.fstat(file.fileno()).st_size - file.tell()
            if not whole or size != len(kept) * 3 * side**2 or (size <= CHECKED and _checksum(file) != meta["pixels"]):
                return None
        content_ids = _read_ids(target / "content.npy", len(kept), meta["content"])
        if content_ids is None:
            return None
        images = np.load(target / "images.npy", mmap_mode="r")
        indices, unusable = np.array(kept, dtype=np.int64), tuple((at, why) for at, why in skipped)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
    return Decoded(target.name, images, indices, unusable, content_ids)


def _read_ids(path: Path, count: int, checksum: int) -> NDArray[np.int64] | None:
    """The content digests of a cache, or None where they were damaged. Nothing in the file decides how much is read."""
    with path.open("rb") as file:
        np.lib.format.write_array_header_1_0(header := io.BytesIO(), _ids_described(count))
        whole = file.read(header.tell() + 8 * count + 1)
    start = header.getvalue()
    if not whole.startswith(start) or len(whole) != len(start) + 8 * count or zlib.crc32(whole) != checksum:
        return None
    return np.frombuffer(whole, "<i8", offset=len(start)).astype(np.int64)


def _write_ids(path: Path, content_ids: list[int]) -> int:
    """Write content digests and return the checksum of the file."""
    np.lib.format.write_array_header_1_0(file := io.BytesIO(), _ids_described(len(content_ids)))
    file.write(np.array(content_ids, dtype="<i8").tobytes())
    path.write_bytes(file.getvalue())
    return zlib.crc32(file.getvalue())


def _ids_described(count: int) -> dict[str, object]:
    """The header of `content.npy`."""
    return {"descr": "<i8", "fortran_order": False, "shape": (count,)}


def _listed(kept: list[int], skipped: list[tuple[int, str]], ranges: dict[str, object]) -> int:
    """A checksum of what is in a cache, what is not, and how it was decoded."""
    return zlib.crc32(json.dumps([kept, skipped, ranges]).encode())


def _checksum(file: BinaryIO) -> int:
    """Of the rest of a file."""
    found = 0
    while piece := file.read(2**20):
        found = zlib.crc32(piece, found)
    return found


def _build(reader: Reader, side: int, indices: Indices, ranges: Ranges, target: Path, content: str) -> None:
    """Write a cache beside its place and move it there whole."""
    for dead in target.parent.glob(f"{target.name}.part-*"):  # we hold the lock, so whoever wrote it is gone
        shutil.rmtree(dead, ignore_errors=True)
    if shutil.disk_usage(target.parent).free < len(indices) * 3 * side**2:
        raise OSError(errno.ENOSPC, "not enough space")
    part = target.with_name(f"{target.name}.part-{os.getpid()}")
    part.mkdir()
    try:
        _write(reader, side, indices, ranges, part)
        if reader.fingerprint_of(indices) != content:  # under the key of the old ones it would be wrong for ever
            raise UserError(
                f"images must stay as they are while they are decoded, found others now in {reader.name}: repeat the "
                "command once nobody writes there."
            )
        shutil.rmtree(target, ignore_errors=True)  # a damaged one
        part.rename(target)
    except BaseException:  # Ctrl-C too
        shutil.rmtree(part, ignore_errors=True)
        raise


def _write(reader: Reader, side: int, indices: Indices, ranges: Ranges, part: Path) -> None:
    """Decode into a folder: the images, the list of them, and checksums of both."""
    kept: list[int] = []
    skipped: list[tuple[int, str]] = []
    content_ids: list[int] = []
    pixels = 0
    with (part / "images.npy").open("wb") as file, Meter(f"decoding {reader.name}", len(indices)) as meter:
        _header(file, len(indices), side)
        for index, (found, identity) in zip(indices.tolist(), _decode_all(reader, side, indices, ranges), strict=True):
            if isinstance(found, str):
                skipped.append((index, found))
            else:
                kept.append(index)
                content_ids.append(identity)
                file.write(found.data)
                pixels = zlib.crc32(found.data, pixels)
            meter.advance()
        file.seek(0)
        _header(file, len(kept), side)
        file.flush()
        os.fsync(file.fileno())
    meta = {
        "kept": kept,
        "skipped": skipped,
        "listed": _listed(kept, skipped, asdict(ranges)),
        "pixels": pixels,
        "content": _write_ids(part / "content.npy", content_ids),
        "ranges": asdict(ranges),
    }
    (part / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


def _header(file: BinaryIO, count: int, side: int) -> None:
    """The start of an .npy file; numpy leaves room in it for the first axis to change."""
    described = {"descr": "|u1", "fortran_order": False, "shape": (count, 3, side, side)}
    np.lib.format.write_array_header_1_0(file, described)


def _decode_all(
    reader: Reader, side: int, indices: Indices, ranges: Ranges = NOMINAL
) -> Iterator[tuple[RGB | str, int]]:
    """Decode in threads (Pillow works outside the interpreter's lock), in order, reading a few blocks ahead."""
    raws = reader.stream(indices)
    workers = threads()
    waiting: deque[Future[list[tuple[RGB | str, int]]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        while block := list(islice(raws, BLOCK)):
            waiting.append(pool.submit(_decode_block, block, side, ranges))
            if len(waiting) > 2 * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()


def _decode_block(block: list[Raw], side: int, ranges: Ranges) -> list[tuple[RGB | str, int]]:
    return [decode_with_id(raw, side, ranges) for raw in block]


def threads() -> int:
    """Processors this process may use, at most 16."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, 16)


def _storage_error(error: OSError, folder: Path, size: int) -> UserError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(
            f"the decoded images need {size / 2**20:,.0f} MB in {folder}, which is full: free some space, set "
            f"SELFTAUGHT_CACHE to a folder on another disk, or take fewer images (--limit)."
        )
    return UserError(
        f"decoded images must be kept in a folder that can be written, found {folder} ({error.strerror or error}): "
        f"set SELFTAUGHT_CACHE to another one."
    )
