"""Decode cache: the images of a reader as uint8 squares of one size in one file, read through a memory map.

A cache is a folder `<key>` with `images.npy` (N, 3, S, S), `content.npy` (N,), `meta.json` and, for each dense target,
a file such as `depth.npy` (N, C, S, S). The key is a digest of
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
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from selftaught.data.brightness import NOMINAL, Ranges
from selftaught.data.dense import STORED, dense_names, stored_bytes
from selftaught.data.parallel import decode_all
from selftaught.data.reader import Indices, Reader
from selftaught.display.progress import Meter
from selftaught.errors import UserError

FORMAT = 3
"""Format version, part of every key: increase it when the result of decoding changes."""
CHECKED = 2**30
"""Largest size in bytes at which the checksum of the pixels is verified; takes a second at most."""
DENSE_FORMAT = 1
"""The same for dense targets, part of the keys of sources that have some."""
ARRAYS: Mapping[str, tuple[int, type[np.generic]]] = {"images": (3, np.uint8), **STORED}
"""Channels and type of each array of a cache."""


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
        if not all(_is_valid(target, name, len(kept), side, checksum) for name, checksum in checksums.items()):
            return None
        content_ids = _read_ids(target / "content.npy", len(kept), meta["content"])
        if content_ids is None:
            return None
        images = np.load(target / "images.npy", mmap_mode="r")
        dense = {name: np.load(target / f"{name}.npy", mmap_mode="r") for name in names}
        indices, failures = np.array(kept, dtype=np.int64), tuple((index, reason) for index, reason in skipped)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError):
        return None
    return Decoded(target.name, images, indices, failures, content_ids, dense)


def _is_valid(target: Path, name: str, count: int, side: int, checksum: int) -> bool:
    """Whether an array of a cache has the expected header, length and, up to `CHECKED` bytes, checksum."""
    with (target / f"{name}.npy").open("rb") as file:
        header = _header(name, count, side)
        valid_header = file.read(len(header)) == header
        size = os.fstat(file.fileno()).st_size - file.tell()
        channels, kind = ARRAYS[name]
        if not valid_header or size != count * channels * side**2 * np.dtype(kind).itemsize:
            return False
        return size > CHECKED or _checksum(file) == checksum


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
    kept: list[int] = []
    skipped: list[tuple[int, str]] = []
    content_ids: list[int] = []
    with ExitStack() as stack:
        meter = stack.enter_context(Meter(f"decoding {reader.name}", len(indices)))
        names = ("images", *dense_names(reader))
        arrays = {name: stack.enter_context(_ArrayFile(part, name, len(indices), side)) for name in names}
        for index, result in zip(indices.tolist(), decode_all(reader, side, indices, ranges), strict=True):
            if isinstance(result.image, str):
                skipped.append((index, result.image))
            else:
                kept.append(index)
                content_ids.append(result.content_id)
                for name, values in {"images": result.image, **result.dense}.items():
                    arrays[name].append(values)
            meter.advance()
        checksums = {name: array.finish(len(kept)) for name, array in arrays.items()}
    meta = {
        "kept": kept,
        "skipped": skipped,
        "listed": _list_checksum(kept, skipped, asdict(ranges)),
        "pixels": checksums.pop("images"),
        "dense": checksums,
        "content": _write_ids(part / "content.npy", content_ids),
        "ranges": asdict(ranges),
    }
    (part / "meta.json").write_text(json.dumps(meta), encoding="utf-8")


class _ArrayFile:
    """An .npy file that is appended to, one image at a time."""

    def __init__(self, folder: Path, name: str, most: int, side: int) -> None:
        self._name, self._side, self._checksum = name, side, 0
        self._file = (folder / f"{name}.npy").open("wb")
        self._file.write(_header(name, most, side))

    def __enter__(self) -> Self:
        return self

    def append(self, values: NDArray[np.generic]) -> None:
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
