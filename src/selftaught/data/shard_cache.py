"""Copies of remote files in the cache folder: whole, of bounded size in total, downloaded in the background.

A file is used where it is until its copy is complete. Copies that were not used for a day are removed when there is no
room for a new one; where that is not enough, no more files are copied, so that a source that is larger than the cache
does not download its files again and again.
"""

import os
import queue
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from selftaught.errors import UserError

DEFAULT_LIMIT = 100 * 10**9
"""Bytes of all copies together, without SELFTAUGHT_REMOTE_GB."""
FREE_SHARE = 0.05
"""Share of the disk that is left free."""
DOWNLOADS = 2
"""Files that a process downloads at the same time."""
USED = 3_600
"""Seconds after which the use of a copy is noted again."""
UNUSED = 86_400
"""Seconds after which a copy that was not used may be removed."""


class ShardCache:
    """Copies of remote files in a folder, shared by all processes.

    Args:
        folder: the folder.
        limit: size in bytes of all copies together.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self._limit = folder, limit
        self._lock = threading.Lock()
        self._noted: dict[str, float] = {}
        self._pending: dict[str, Future[Path | None]] = {}
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._workers = 0

    def find(self, name: str, size: int, download: Callable[[Path], None], wait: bool) -> Path | None:
        """The copy of a file; begins to download it if there is none.

        Args:
            name: name of the copy, different for each version of a file.
            size: size of the file in bytes.
            download: writes the file to a path, atomically.
            wait: whether to wait for the copy.

        Returns:
            Its path; None if it is not there yet, or there is no room for it.

        Raises:
            UserError: it was waited for, and could not be downloaded.
        """
        path = self.folder / name
        if self._is_there(path, size):
            return path
        with self._lock:
            pending = self._pending.get(name)
            if pending is None or _is_gone(pending):
                pending = self._pending[name] = Future()
                self._jobs.put(lambda: self._fetch(path, size, download, pending))
                if self._workers < DOWNLOADS:
                    self._workers += 1
                    # A daemon, so that a process can end while files are downloaded.
                    threading.Thread(target=self._work, name=f"download-{self._workers}", daemon=True).start()
        return pending.result() if wait else None

    def _is_there(self, path: Path, size: int) -> bool:
        """Whether there is a complete copy; notes that it is used."""
        try:
            if path.stat().st_size != size:
                return False
            if time.time() - self._noted.get(path.name, 0.0) > USED:
                self._noted[path.name] = time.time()
                os.utime(path)
        except OSError:
            return False
        return True

    def _work(self) -> None:
        while True:
            self._jobs.get()()

    def _fetch(self, path: Path, size: int, download: Callable[[Path], None], pending: "Future[Path | None]") -> None:
        """Download a file, unless another process did it in the meantime or there is no room."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f"{path.name}.lock"):
                if not self._is_there(path, size):
                    for stale in self.folder.glob(f"{path.name}.part-*"):  # under the lock, so its writer has ended
                        stale.unlink(missing_ok=True)
                    if not self._make_room(size):
                        pending.set_result(None)
                        return
                    download(path)
            pending.set_result(path)
        except OSError:  # a full disk, or a folder that cannot be written
            pending.set_result(None)
        except BaseException as error:
            pending.set_exception(error)

    def _make_room(self, size: int) -> bool:
        """Remove copies that have not been used for long until there is room for a new one; whether there is."""
        with FileLock(self.folder / "room.lock"):
            files = []
            for path in self.folder.iterdir():
                with suppress(OSError):
                    status = path.stat()
                    files.append((status.st_mtime, status.st_size, path))
            total = sum(own for _, own, _ in files)
            usage = shutil.disk_usage(self.folder)
            excess = max(total + size - self._limit, int(size + FREE_SHARE * usage.total - usage.free))
            for used, own, path in sorted(files):
                if excess <= 0 or time.time() - used < UNUSED:
                    break
                if path.suffix != ".lock":
                    path.unlink(missing_ok=True)
                    excess -= own
            return excess <= 0


def _is_gone(pending: "Future[Path | None]") -> bool:
    """Whether a copy was made that has been removed since."""
    return pending.done() and pending.exception() is None and pending.result() is not None


def shard_cache(folder: Path) -> ShardCache:
    """The copies of remote files in the cache folder.

    Raises:
        UserError: SELFTAUGHT_REMOTE_GB is not a number.
    """
    text = os.environ.get("SELFTAUGHT_REMOTE_GB", "")
    try:
        limit = float(text) * 1e9 if text else DEFAULT_LIMIT
        return ShardCache(folder / "remote", int(limit))
    except (ValueError, OverflowError) as error:
        raise UserError(f"SELFTAUGHT_REMOTE_GB expects a number of gigabytes, got {text!r}.") from error
