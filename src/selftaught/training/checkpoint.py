"""Checkpoints: written whole or not at all, and the one before is kept in case the disk lied.

Read with torch's weights-only loader: tensors, numbers, names; nothing in a checkpoint can run. A file ends with a
digest of the rest, because torch does not look at the checksums it writes, and says which run it is of: a state is gone
on with as it was, or not at all.

Not here: protection against somebody who means harm and computes the digest anew; what he can do is train badly.
"""

import hashlib
import os
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from selftaught.errors import StorageError, UserError
from selftaught.training.whole import whole

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

    def save(self, state: dict[str, Any]) -> None:
        """Write a state beside the others, then let it take the place of the last: a kill in between costs nothing.

        Raises:
            StorageError: the disk is full or the folder cannot be written; the states before are as they were.
        """
        try:
            self.last.parent.mkdir(parents=True, exist_ok=True)
            with whole(self.last, before=self.previous) as file:
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
        present = [path for path in (self.last, self.previous) if os.path.lexists(path)]
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
            if not _is_whole(path):
                return None
            state = torch.load(path, map_location="cpu", weights_only=True)
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


def _is_whole(path: Path) -> bool:
    """Whether a file ends with the digest of the rest."""
    digest = hashlib.blake2b(digest_size=DIGEST)
    left = path.stat().st_size - DIGEST
    with path.open("rb") as file:
        while left > 0 and (piece := file.read(min(left, 2**20))):
            digest.update(piece)
            left -= len(piece)
        return file.read() == digest.digest()


def _storage_error(error: BaseException | None) -> OSError | None:
    """The error of the disk that is behind another: torch's zip writer makes a full disk a RuntimeError."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error
