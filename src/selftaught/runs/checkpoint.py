"""Checkpoints: written atomically; the previous one is kept in case the last is damaged.

Checkpoints are loaded with torch's weights-only loader (tensors, numbers, names), so they cannot execute code. A file
ends with a digest of the rest, because torch does not verify the checksums it writes, and contains the identity of its
run, so a damaged or foreign checkpoint is rejected. An attacker who recomputes the digest can degrade training, but
cannot run code or use more memory than the size of the file.
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
"""Size in bytes of the digest, which follows torch's zip archive."""


class Checkpoints:
    """The last two checkpoints of a run.

    Args:
        folder: folder of the checkpoints; created by the first `save`.
        run: identity of the run; checkpoints of another run are rejected.
    """

    def __init__(self, folder: Path, run: str = "") -> None:
        self.last, self.previous, self.run = folder / "last.pt", folder / "previous.pt", run
        self.root = folder.parent

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint atomically; the last one becomes the previous one.

        Raises:
            StorageError: the disk is full or the folder is not writable; existing checkpoints are unchanged.
        """
        try:
            make_folder(self.last.parent, self.root)
            with atomic_write(self.last, self.root, self.previous) as file:
                digested = _Digested(file)
                torch.save({**state, "run": self.run}, cast(BinaryIO, digested))  # torch calls only write and flush
                file.write(digested.digest.digest())
        except (OSError, RuntimeError) as error:
            reason = _storage_error(error)
            if reason is None:
                raise
            exists_earlier = self.last.exists() or self.previous.exists()
            kept = "the previous one is kept" if exists_earlier else "there was no earlier one"
            raise StorageError(
                f"cannot write a checkpoint to {self.last.parent}: {reason.strerror or reason}; {kept}. Free some "
                "space, then continue with --resume."
            ) from error

    def load(self) -> dict[str, Any] | None:
        """Load the last valid checkpoint; None if there are no checkpoints.

        Raises:
            UserError: there are checkpoints, but none is valid.
        """
        check_links(self.last.parent, self.root)
        present = [path for path in (self.last, self.previous) if exists(path)]
        for path in present:
            if (state := self._read(path)) is not None:
                return state
        if present:
            raise UserError(
                f"no valid checkpoint in {self.last.parent}: {len(present)} damaged or from another run. Restore it, "
                "or start a new run in another folder with --out."
            )
        return None

    def _read(self, path: Path) -> dict[str, Any] | None:
        """Load a checkpoint; None if it is damaged or belongs to another run."""
        try:
            with open_regular(path, self.root) as file:
                if not _is_complete(file) or not _is_uncompressed(file):
                    return None
                file.seek(0)
                state = torch.load(file, map_location="cpu", weights_only=True)
            if state.pop("run", self.run) != self.run or type(state["step"]) is not int:
                return None
        except Exception:  # torch raises many exception types for damaged files
            return None
        return dict(state)


class _Digested:
    """A binary file that also computes the digest of the bytes written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.blake2b(digest_size=DIGEST)

    def write(self, content: bytes) -> int:
        """Write and update the digest."""
        self.digest.update(content)
        return self.file.write(content)

    def flush(self) -> None:
        """Flush the file."""
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
    """Whether the archive is stored without compression, as torch writes it.

    A compressed archive of a few kilobytes could expand to gigabytes (zip bomb).
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
    return stored and sum(entry.file_size for entry in entries) <= os.fstat(file.fileno()).st_size


def _storage_error(error: BaseException | None) -> OSError | None:
    """The `OSError` in the chain of causes: torch's zip writer raises RuntimeError when the disk is full."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error
