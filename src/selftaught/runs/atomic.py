"""Atomic file writes: after a kill, a full disk or a power cut a file is either complete or absent."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from selftaught.errors import StorageError, readable
from selftaught.runs.files import NO_BLOCK, NO_FOLLOW, check_links, make_folder

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space, no quota, or a limit on the size of files."""


@contextmanager
def atomic_write(path: Path, root: Path | None = None, previous: Path | None = None) -> Iterator[BinaryIO]:
    """Open `path.part` for writing; when the block ends it is flushed to the disk and renamed to `path`.

    The temporary file is always created anew: an existing one (left by a killed writer, or a planted link) is removed,
    never opened.

    Args:
        path: the file.
        root: the run folder, below which symbolic links are refused; by default the folder of the file.
        previous: the existing file is renamed to this path just before it is replaced.

    Raises:
        UserError: the path passes through a symbolic link.
        OSError: the file cannot be written.
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
    except BaseException:  # Ctrl-C too; a partial file would take up space on a full disk
        with suppress(OSError):
            part.unlink()
        raise


def create(path: Path) -> BinaryIO:
    """Create a new file for writing; an existing one is removed without being opened."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW | getattr(os, "O_BINARY", 0)
    try:
        return os.fdopen(os.open(path, flags, 0o666), "wb")
    except FileExistsError:
        path.unlink()
        return os.fdopen(os.open(path, flags, 0o666), "wb")


def write_bytes(path: Path, content: bytes, root: Path | None = None) -> None:
    """Write a file atomically and create the folders between `root` and the file.

    Raises:
        UserError: the disk is full, the folder is not writable or the path passes through a symbolic link; an existing
            file is unchanged.
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
    """Append to a file and flush it to the disk.

    Raises:
        UserError: as for `write_bytes`.
    """
    with open_append(path, path.parent) as file:
        try:
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
        except OSError as error:
            raise write_error(path.parent, error) from error


def open_append(path: Path, root: Path) -> BinaryIO:
    """Open a file for appending, and create it if it is missing.

    Raises:
        UserError: it cannot be written, is not a regular file, or passes through a symbolic link below `root`.
    """
    check_links(path, root)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | NO_FOLLOW | NO_BLOCK
    try:
        descriptor = os.open(path, flags, 0o666)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise OSError(errno.ENXIO, f"{path.name} is not a regular file")
    except OSError as error:
        raise write_error(path.parent, error) from error
    return os.fdopen(descriptor, "ab")


def write_error(folder: Path, error: OSError) -> StorageError:
    """The error for a file of a run that could not be written."""
    reason, place = (error.strerror or str(error)).lower(), readable(str(folder))
    if error.errno in FULL:
        return StorageError(
            f"cannot write to {place}: {reason}. Earlier files are kept; free some space, then repeat the command, "
            "with --resume if the run was training."
        )
    return StorageError(
        f"the folder {place} is not writable ({reason}): change its permissions, or use another folder."
    )


def _sync_folder(folder: Path) -> None:
    """Flush a rename to the disk, so that it survives a power cut; not supported on every system."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
