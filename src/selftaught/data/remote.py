"""Files of object stores and web servers, through fsspec: `s3://bucket/folder`, `gs://...`, `https://host/file.tar`.

Parts of a file are read by byte range. Whole files are downloaded in the background into the cache folder
(`shard_cache.py`), and read there from then on.
"""

import errno
import hashlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import sleep, time_ns
from typing import Any, TypeVar
from urllib.parse import urlsplit

from selftaught.data.atomic import replacing
from selftaught.data.reader import readable
from selftaught.data.shard_cache import ShardCache
from selftaught.errors import UserError

T = TypeVar("T")

URL = re.compile(r"([a-z][a-z0-9+.-]+)://.", re.ASCII | re.IGNORECASE)
ATTEMPTS = 4
"""Number of times that a request is made before the connection counts as broken."""
FIRST_WAIT = 1.0
"""Seconds before the second attempt; twice as long before each further one."""
PROBE = 16
"""Bytes read to find out whether a server supports byte ranges."""
TAGS = ("ETag", "etag", "md5Hash", "Content-MD5", "Last-Modified", "LastModified", "updated", "mtime", "created")
"""What file systems of fsspec call the version of a file, in order of preference."""
FULL = (errno.ENOSPC, errno.EDQUOT)
"""No space, or no quota, on the disk of the cache."""
BUSY = (408, 425, 429)
"""HTTP status codes of 400 to 499 after which a request is worth repeating."""


def is_url(name: str) -> bool:
    """Whether a source is an address such as `s3://bucket/folder`."""
    return URL.match(name) is not None


class Server:
    """A file system of fsspec and the cache of its files.

    Args:
        url: the address of a file or folder on it.
        cache: where its files are kept.

    Raises:
        UserError: fsspec does not know the protocol, or a package is missing.
    """

    def __init__(self, url: str, cache: ShardCache) -> None:
        protocol = url.partition("://")[0].lower()
        try:
            import fsspec

            self.system, path = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise UserError(f"{protocol}:// needs further packages: pip install 'selftaught[remote]'.") from error
        except ValueError as error:
            raise UserError(
                f"unknown protocol {readable(protocol)}://: use s3://, gs:// or https://, or a folder of this machine."
            ) from error
        self.url, self.path, self.cache = url, path.rstrip("/"), cache
        self._has_ranges: bool | None = None

    def file(self, path: str, title: str, info: Mapping[str, Any] | None = None) -> "RemoteFile":
        """A file, with its size and version from the server, or from a listing.

        Raises:
            UserError: it does not exist, or the connection is broken.
        """
        if info is None or info.get("size") is None:
            info = self.attempt(path, lambda: self.system.info(path))
        if info.get("size") is None:
            raise UserError(f"the server does not state the size of {self.shown(path)}: copy it to a folder.")
        tag = next((str(info[name]) for name in TAGS if info.get(name)), "")
        return RemoteFile(self, path, title, int(info["size"]), tag or str(time_ns()))

    def info(self, path: str) -> Mapping[str, Any] | None:
        """What is known about a file; None if it does not exist."""

        def request() -> Mapping[str, Any] | None:
            try:
                found: Mapping[str, Any] = self.system.info(path)
            except FileNotFoundError as error:
                if isinstance(_origin(error), FileNotFoundError):
                    return None
                raise
            return found

        return self.attempt(path, request)

    def listing(self) -> dict[str, dict[str, Any]]:
        """All files below the folder -> what is known about them."""
        found: dict[str, dict[str, Any]] = self.attempt(self.path, lambda: self.system.find(self.path, detail=True))
        return found

    def read(self, files: Sequence["RemoteFile"], starts: Sequence[int], sizes: Sequence[int]) -> list[bytes] | None:
        """Parts of files, requested at the same time; None if the server sends whole files only.

        Raises:
            UserError: the connection is broken, or a file is shorter than it was.
        """
        if self._has_ranges is None:
            first = files[0]
            size = min(PROBE, first.size)
            probe = self.attempt(first.path, lambda: self.system.cat_file(first.path, start=0, end=size))
            self._has_ranges = len(probe) == size
        if not self._has_ranges:
            return None
        paths, ends = [file.path for file in files], [start + size for start, size in zip(starts, sizes, strict=True)]
        parts: list[bytes] = self.attempt(
            paths[0], lambda: self.system.cat_ranges(paths, list(starts), ends, on_error="raise")
        )
        for file, part, size in zip(files, parts, sizes, strict=True):
            if len(part) != size:
                raise UserError(f"{self.shown(file.path)} is shorter than when the source was opened: restore it.")
        return parts

    def attempt(self, path: str, request: Callable[[], T]) -> T:
        """The result of a request, repeated if the connection breaks.

        Raises:
            UserError: the file does not exist, may not be read, or the connection stays broken.
            OSError: the disk of the cache is full.
        """
        for number in range(ATTEMPTS):
            try:
                return request()
            except UserError:
                raise
            except Exception as raised:  # each file system has exceptions of its own
                error = _origin(raised)
                if isinstance(error, OSError) and error.errno in FULL:
                    raise
                if isinstance(error, FileNotFoundError):
                    raise UserError(f"no such file or folder: {self.shown(path)}; check the address.") from error
                status = getattr(error, "status", 0)
                refused = isinstance(error, PermissionError | ImportError) or (
                    400 <= status < 500 and status not in BUSY
                )
                if refused or number == ATTEMPTS - 1:
                    text = str(error).replace(path, self.shown(path)) or type(error).__name__
                    reason = readable(f"HTTP status {status}" if status else text)[:200].rstrip(".")
                    hint = "check your credentials" if refused else "check the connection, then repeat the command"
                    raise UserError(f"cannot read {self.shown(path)} ({reason}): {hint}.") from error
            sleep(FIRST_WAIT * 2**number)
        raise AssertionError("the last attempt returns or raises")

    def shown(self, path: str) -> str:
        """The address of a file, without what may be secret in it."""
        address = urlsplit(path if "://" in path else f"{self.url.partition('://')[0]}://{path.lstrip('/')}")
        return readable(f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}")


def _origin(error: Exception) -> Exception:
    """The error itself, or what caused it where fsspec calls a broken connection a missing file."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, Exception):
        is_network = type(cause).__module__.partition(".")[0] == "aiohttp"
        if is_network or isinstance(cause, OSError | TimeoutError):
            return cause
    return error


@dataclass(frozen=True, eq=False)
class RemoteFile:
    """A file on a server."""

    server: Server
    path: str
    """Its path as its file system has it."""
    title: str
    """Path relative to the source, with "/"."""
    size: int
    """Size in bytes."""
    tag: str
    """Changes when the file changes."""

    def __str__(self) -> str:
        return self.server.shown(self.path)

    @property
    def name(self) -> str:
        """Name without folders."""
        return self.title.rpartition("/")[2]

    @cached_property
    def key(self) -> str:
        """Name of its copy in the cache."""
        text = f"{self.server.url.partition('://')[0]} {self.path} {self.size} {self.tag}"
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def located(self, whole: bool = False) -> "Path | RangedFile":
        """The copy on this machine, or a file that is read over the network while a copy is downloaded.

        Args:
            whole: whether most of the file is needed, so that it is better to wait for the copy.

        Raises:
            UserError: the connection is broken, or the server sends whole files only and there is no room for them.
        """
        cache = self.server.cache
        if path := cache.find(self.key, self.size, self._download, whole):
            return path
        if self.server.read([self], [0], [min(PROBE, self.size)]) is not None:
            return RangedFile(self)
        if path := cache.find(self.key, self.size, self._download, wait=True):
            return path
        raise UserError(
            f"{self} can only be read as a whole, because the server does not support byte ranges, and there is no "
            f"room for it in {readable(str(cache.folder))}: set SELFTAUGHT_REMOTE_GB to more, or copy it to a folder."
        )

    def _download(self, path: Path) -> None:
        """Copy the whole file to a path, which then exists completely or not at all."""

        def copy() -> None:
            with replacing(path) as part:
                self.server.system.get_file(self.path, str(part))
                if (size := part.stat().st_size) != self.size:
                    raise OSError(f"{size:,} of {self.size:,} bytes were sent")

        self.server.attempt(self.path, copy)


class RangedFile(io.RawIOBase):
    """A file that is read over the network by byte range, one request for each read."""

    def __init__(self, file: RemoteFile) -> None:
        self.file, self._position = file, 0

    def readable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def seekable(self) -> bool:
        """See `io.RawIOBase`."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """See `io.RawIOBase`."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.file.size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        """See `io.RawIOBase`."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase`."""
        size = max(0, min(len(buffer), self.file.size - self._position))
        if size:
            parts = self.file.server.read([self.file], [self._position], [size])
            assert parts is not None
            buffer[:size] = parts[0]
            self._position += size
        return size
