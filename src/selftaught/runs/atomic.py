"""Atomic file writes: a file is complete or absent, whatever ends its writer (a kill, a full disk, a power cut)."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from selftaught.errors import StorageError, readable
from selftaught.runs.files import NO_FOLLOW, check_links, make_folder

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space, no quota, or a limit on the size of files."""


@contextmanager
def atomic_write(path: Path, root: Path | None = None, previous: Path | None = None) -> Iterator[BinaryIO]:
    """A file that is written to `path.part`, flushed to the disk and renamed to `path` when the block ends.

    The temporary file is always a new one: what is there already (left by a writer that was killed, or a link planted
    there) is removed, never opened.

    Args:
        path: the file.
        root: the run folder, below which symbolic links are refused; by default the folder of the file.
        previous: the present file is renamed to this just before the new one takes its place.

    Raises:
        UserError: there is a symbolic link on the way.
        OSError: it cannot be written.
    """
    check_links(path, root or path.parent)
    part = path.with_name(f"{path.name}.part")
    try:
        with create(part) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            written = os.fstat(file.fileno())
        if not os.path.samestat(written, os.lstat(part)):
            raise OSError(errno.EBUSY, "another process is writing the same file")
        if previous is not None and path.exists():
            path.replace(previous)
        part.replace(path)
        _sync_folder(path.parent)
    except BaseException:  # Ctrl-C too; a partial file would take up room on a full disk
        with suppress(OSError):
            part.unlink()
        raise


def create(path: Path) -> BinaryIO:
    """A new file for writing in the place of what is there, which is removed without being opened."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW | getattr(os, "O_BINARY", 0)
    try:
        return os.fdopen(os.open(path, flags, 0o666), "wb")
    except FileExistsError:
        path.unlink()
        return os.fdopen(os.open(path, flags, 0o666), "wb")


def write_bytes(path: Path, content: bytes, root: Path | None = None) -> None:
    """Write a file atomically; folders between `root` and the file are made.

    Raises:
        UserError: the disk is full, the folder cannot be written or there is a symbolic link on the way; what was at
            `path` is unchanged.
    """
    try:
        if root is not None and path.parent != root:
            make_folder(path.parent, root)
        with atomic_write(path, root) as file:
            file.write(content)
    except OSError as error:
        raise write_error(path.parent, error) from error


def write_text(path: Path, text: str, root: Path | None = None) -> None:
    """Write a file as UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"), root)  # file names need not be valid text


def append_text(path: Path, text: str) -> None:
    """Append to a file and wait until it is on the disk.

    Raises:
        UserError: as for `write_bytes`.
    """
    try:
        check_links(path, path.parent)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | NO_FOLLOW, 0o666), "ab") as file:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise write_error(path.parent, error) from error


def write_error(folder: Path, error: OSError) -> StorageError:
    """The sentence for a file of a run that could not be written."""
    reason, place = (error.strerror or str(error)).lower(), readable(str(folder))
    if error.errno in FULL:
        return StorageError(
            f"cannot write to {place}: {reason}. All that was saved before is kept; make room, then repeat the "
            "command, with --resume if the run was training."
        )
    return StorageError(f"a run folder must be writable, but {place} is not ({reason}): give another --out.")


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut; not every system can, and the names are right without it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
