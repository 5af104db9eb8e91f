"""Files that are there whole or not at all, whatever ends their writer: a kill, a full disk, a power cut."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from selftaught.errors import StorageError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space, no quota, or a limit on the size of files: what is needed is room."""


@contextmanager
def whole(path: Path, before: Path | None = None) -> Iterator[BinaryIO]:
    """A file that takes its place when the block is done, and is on the disk then.

    Args:
        path: its place. It is written beside it; what an earlier writer left there, killed half-way, is overwritten.
        before: what is at `path` moves here, just before the new one takes its place.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if before is not None and path.exists():
            path.replace(before)
        part.replace(path)
        _sync_folder(path.parent)
    except BaseException:  # Ctrl-C too; and what is left of a file takes up room on a full disk
        with suppress(OSError):
            part.unlink()
        raise


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file of a run.

    Raises:
        StorageError: the disk is full or the folder cannot be written; what was at `path` is as it was.
    """
    try:
        with whole(path) as file:
            file.write(content)
    except OSError as error:
        raise write_error(path.parent, error) from error


def write_text(path: Path, text: str) -> None:
    """Write a file of a run as UTF-8; see `write_bytes`."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))  # names of files need not be valid text


def write_error(folder: Path, error: OSError) -> StorageError:
    """The sentence for a file of a run that could not be written."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in FULL:
        return StorageError(
            f"a run needs room on the disk, found {reason} at {folder}: all that was saved before is kept; make room, "
            "then repeat the command, with --resume if the run was training."
        )
    return StorageError(f"a run folder must be writable, found {reason} at {folder}: give another --out.")


def _sync_folder(folder: Path) -> None:
    """Let a change of names outlive a power cut; not every system can, and the names are right without it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
