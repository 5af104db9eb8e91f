"""Checkpoints: written whole or not at all, and the one before is kept in case the disk lied.

Read with torch's weights-only loader: tensors, numbers, names; nothing in a checkpoint can run.
"""

import os
from pathlib import Path
from typing import Any

import torch

from selftaught.errors import UserError


class Checkpoints:
    """The last two states of a run, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.last, self.previous = folder / "last.pt", folder / "previous.pt"

    def save(self, state: dict[str, Any]) -> None:
        """Write a state beside the others, then let it take the place of the last: a kill in between costs nothing."""
        self.last.parent.mkdir(parents=True, exist_ok=True)
        part = self.last.with_suffix(".part")
        try:
            with part.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
            part.unlink(missing_ok=True)
            raise UserError(
                f"a checkpoint must fit on the disk, found {error} at {part.parent}: the one before is kept; make room "
                "and go on with --resume."
            ) from error
        if self.last.exists():
            self.last.replace(self.previous)
        part.replace(self.last)

    def load(self) -> dict[str, Any] | None:
        """The last state that can be read; None where there never was one.

        Raises:
            UserError: there are checkpoints, and none can be read.
        """
        present = [path for path in (self.last, self.previous) if path.exists()]
        for path in present:
            try:
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                return state
            except Exception:  # cut short or not ours: torch raises half a dozen kinds
                continue
        if present:
            raise UserError(
                f"a checkpoint must be readable to go on, found {len(present)} damaged in {self.last.parent}: "
                "start the run anew in another folder with --out."
            )
        return None
