"""Locks of folders, so that no two processes write the same results."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from selftaught.errors import UserError, readable
from selftaught.runs.files import exists, read_start

LOCK = ".lock"


@contextmanager
def locked(folder: Path, busy: str) -> Iterator[None]:
    """Lock a folder for the block, by its file `LOCK`.

    Args:
        folder: an existing folder.
        busy: the message if another process has locked it.

    Raises:
        UserError: another process has locked it, or the lock file is not empty.
    """
    path = folder / LOCK
    if exists(path) and read_start(path, folder, 1):  # taking the lock would empty a file of another name
        raise UserError(f"{readable(str(path))} must be an empty file, but it is not: remove it.")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(busy) from None
    try:
        yield
    finally:
        lock.release()
