"""Safe access to the files of a run folder: regular files, reached without symbolic links, of limited size.

Hard links are read like other files, because backup tools create them; since files are replaced by renaming, writing
never changes what another name points to.
"""

import os
import shutil
import stat
from pathlib import Path
from typing import BinaryIO

from selftaught.errors import UserError, readable

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
"""Zero where the system has no such flag; `check_links` remains."""
NO_BLOCK = getattr(os, "O_NONBLOCK", 0)
"""Opening a FIFO would otherwise wait for its other end."""
MAX_ENTRIES = 2000
"""Files per subfolder of a run; a run writes a few dozen."""


def exists(path: Path) -> bool:
    """Whether the path exists, including dangling links."""
    return os.path.lexists(path)


def check_links(path: Path, root: Path) -> None:
    """Refuse a path that passes through a symbolic link below `root`; `root` itself may be reached through links.

    Raises:
        UserError: there is a symbolic link.
    """
    place = root
    for part in path.relative_to(root).parts:
        place = place / part
        try:
            mode = os.lstat(place).st_mode
        except OSError:  # missing: the operation itself reports this
            return
        if stat.S_ISLNK(mode):
            raise UserError(
                f"{readable(str(place))} is a symbolic link, and links inside a run folder are not followed: replace "
                "it with the file or folder itself."
            )


def remove_tree(path: Path, root: Path) -> None:
    """Remove a file or folder below `root`; links inside a folder are removed, not followed.

    Raises:
        UserError: a symbolic link leads to it.
    """
    check_links(path, root)
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def open_regular(path: Path, root: Path) -> BinaryIO:
    """Open a file for reading.

    Args:
        path: the file.
        root: the run folder; below it no symbolic link is followed.

    Raises:
        UserError: it passes through a symbolic link, is not a regular file or cannot be read.
    """
    check_links(path, root)
    try:
        descriptor = os.open(path, os.O_RDONLY | NO_FOLLOW | NO_BLOCK | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise _read_error(path, error) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise UserError(f"cannot read {readable(str(path))}: it is not a regular file. Restore or remove it.")
    return os.fdopen(descriptor, "rb")


def read_limited(path: Path, root: Path, limit: int) -> bytes:
    """The contents of a file of at most `limit` bytes.

    Raises:
        UserError: it is longer; and see `open_regular`.
    """
    content = read_start(path, root, limit + 1)
    if len(content) > limit:
        raise UserError(
            f"{readable(str(path))} is larger than the {limit:,} bytes such a file may have: restore or remove it."
        )
    return content


def read_start(path: Path, root: Path, limit: int) -> bytes:
    """The first `limit` bytes of a file, or all of it; see `open_regular`."""
    with open_regular(path, root) as file:
        try:
            return file.read(limit)
        except OSError as error:
            raise _read_error(path, error) from error


def list_folder(folder: Path, root: Path) -> list[Path]:
    """The paths in a subfolder of a run, sorted by name; empty if it does not exist.

    Raises:
        UserError: it is a symbolic link or not a folder, cannot be read, or has too many files.
    """
    check_links(folder, root)
    if not exists(folder):
        return []
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise _read_error(folder, error) from error
    if len(paths) > MAX_ENTRIES:
        raise UserError(f"{readable(str(folder))} holds more than {MAX_ENTRIES:,} files: remove files not needed.")
    return paths


def make_folder(folder: Path, root: Path) -> None:
    """Create a subfolder of a run if it is missing.

    Raises:
        UserError: it passes through a symbolic link.
        OSError: it cannot be created.
    """
    check_links(folder, root)
    folder.mkdir(parents=True, exist_ok=True)


def _read_error(path: Path, error: OSError) -> UserError:
    reason = (error.strerror or str(error)).lower()
    return UserError(f"cannot read {readable(str(path))}: {reason}. Restore or remove it.")
