"""Checkpoints: written atomically, and the previous one is kept in case the disk did not store the last.

Read with torch's weights-only loader: tensors, numbers, names; nothing in a checkpoint can run. A file ends with a
digest of the rest, because torch does not verify the checksums it writes, and names the run it belongs to: a state is
resumed exactly as it was, or not at all. Somebody who computes the digest anew can make a run train badly, but neither
run code nor use more memory than the file is large.
"""

import hashlib
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from selftaught.errors import StorageError, UserError
from selftaught.runs.atomic import atomic_write
from selftaught.runs.files import check_links, exists, make_folder, open_regular

DIGEST = 32
"""Bytes at the end of a file, after the zip archive that torch reads."""


class Checkpoints:
    """The last two states of a run, in a folder.

    Args:
        folder: where they are; made when the first is saved.
        run: says which run they are of; those of another are not read.
    """

    def __init__(self, folder: Path, run: str = "") -> None:
        self.last, self.previous, self.run = folder / "last.pt", folder / "previous.pt", run
        self.root = folder.parent

    def save(self, state: dict[str, Any]) -> None:
        """Write a state beside the others, then let it take the place of the last: a kill in between costs nothing.

        Raises:
            StorageError: the disk is full or the folder cannot be written; the states before are as they were.
        """
        try:
            make_folder(self.last.parent, self.root)
            with atomic_write(self.last, self.root, self.previous) as file:
                digested = _Digested(file)
                torch.save({**state, "run": self.run}, cast(BinaryIO, digested))  # it asks for no more than `write`
                file.write(digested.digest.digest())
        except (OSError, RuntimeError) as error:
            reason = _storage_error(error)
            if reason is None:
                raise
            kept = "the one before is kept" if self.last.exists() or self.previous.exists() else "there was none before"
            raise StorageError(
                f"a checkpoint must fit on the disk, found {reason.strerror or reason} at {self.last.parent}: {kept}; "
                "make room and go on with --resume."
            ) from error

    def load(self) -> dict[str, Any] | None:
        """The last state that can be read; None where there never was one.

        Raises:
            UserError: there are checkpoints, and none can be read.
        """
        check_links(self.last.parent, self.root)
        present = [path for path in (self.last, self.previous) if exists(path)]
        for path in present:
            if (state := self._read(path)) is not None:
                return state
        if present:
            raise UserError(
                f"a checkpoint must be readable and of this run to go on, found {len(present)} damaged or of another "
                f"run in {self.last.parent}: put it back, or start the run anew in another folder with --out."
            )
        return None

    def _read(self, path: Path) -> dict[str, Any] | None:
        """A state of this run, None where the file holds none."""
        try:
            with open_regular(path, self.root) as file:
                if not _is_complete(file) or not _is_uncompressed(file):
                    return None
                file.seek(0)
                state = torch.load(file, map_location="cpu", weights_only=True)
            if state.pop("run", self.run) != self.run or type(state["step"]) is not int:
                return None
        except Exception:  # not ours: torch raises half a dozen kinds
            return None
        return dict(state)


class _Digested:
    """A file that is written to, and a digest of what was."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.blake2b(digest_size=DIGEST)

    def write(self, content: bytes) -> int:
        """As of files."""
        self.digest.update(content)
        return self.file.write(content)

    def flush(self) -> None:
        """As of files."""
        self.file.flush()


def _is_complete(file: BinaryIO) -> bool:
    """Whether a file ends with the digest of the rest."""
    digest = hashlib.blake2b(digest_size=DIGEST)
    left = os.fstat(file.fileno()).st_size - DIGEST
    while left > 0 and (piece := file.read(min(left, 2**20))):
        digest.update(piece)
        left -= len(piece)
    return file.read() == digest.digest()


def _is_uncompressed(file: BinaryIO) -> bool:
    """Whether the archive unpacks to no more than its own size, as those that torch writes.

    A few compressed kilobytes can be many gigabytes of zeros.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    return stored and sum(entry.file_size for entry in entries) <= os.fstat(file.fileno()).st_size


def _storage_error(error: BaseException | None) -> OSError | None:
    """The error of the disk that is behind another: torch's zip writer makes a full disk a RuntimeError."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error
