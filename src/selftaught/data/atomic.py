"""Atomic writes to the cache folder, where several processes may write one file at the same time: the last one wins.

Files of a run folder are written by `runs/atomic.py`, which allows one writer and refuses symbolic links.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to; when the block ends it is flushed to the disk and renamed to `path`.

    The folder is created if it is missing. After an error in the block `path` is unchanged and nothing is left behind.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part-{os.getpid()}")
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:  # Ctrl-C too
        part.unlink(missing_ok=True)
        raise
