"""Creates the folder of a new run: at most one process obtains it, and a run that fails at startup is removed."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from selftaught.errors import ProcessLostError, ReportedError, StorageError
from selftaught.runs.folder import STARTUP_FILES, RunFolder


@contextmanager
def claimed(folder: RunFolder) -> Iterator[None]:
    """Create a new run folder and lock it for the block.

    If the block fails and there is nothing to resume, the files of the run and the folders created for it are removed.

    Raises:
        UserError: the folder is in use or not empty, or it cannot be created or written.
    """
    created = [path for path in (folder.path, *folder.path.parents) if not path.exists()]
    with suppress(OSError):  # a rejected run may be removing the same parents; `claim` reports any other error
        folder.path.mkdir(parents=True, exist_ok=True)
    try:
        folder.claim()
    except BaseException:
        _remove_empty(created)
        raise
    with folder.locked():
        folder.claim()  # again, because another process may have used the folder before it was locked
        try:
            yield
        except BaseException as error:
            if not _is_resumable(folder, error):
                _remove(folder)
                _remove_empty(created)
            raise


def _is_resumable(folder: RunFolder, error: BaseException) -> bool:
    """Whether the run has a config, and either a checkpoint or was interrupted by a signal, a full disk or a kill."""
    stopped = not isinstance(error, Exception) or isinstance(error, StorageError | ProcessLostError)
    stopped = stopped or (isinstance(error, ReportedError) and error.resumable)
    trained = any(folder.checkpoints.glob("*.pt"))
    return folder.config.exists() and (stopped or trained)


def _remove(folder: RunFolder) -> None:
    """Remove the files that training writes, the lock last."""
    files = [folder.config, folder.status, folder.log, folder.weights, folder.encoder, folder.skipped]
    for path in [*files, *(folder.path / name for name in STARTUP_FILES - {".lock"}), folder.path / ".lock"]:
        with suppress(OSError):
            path.unlink()
    for path in (folder.checkpoints, folder.shown):
        shutil.rmtree(path, ignore_errors=True)


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders that are empty, the innermost first."""
    for path in folders:
        with suppress(OSError):
            path.rmdir()
