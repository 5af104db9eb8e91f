"""A progress bar for people who wait: only on a terminal, only after a second, gone when it is done."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PATIENCE = 1.0
"""Seconds before a bar is shown."""


class Meter:
    """Counts steps, and shows them with the time that remains on standard error.

    Args:
        text: what is being done.
        total: number of steps.
    """

    def __init__(self, text: str, total: int) -> None:
        self._console = Console(stderr=True)
        said = TextColumn("{task.description}", markup=False)  # the name of a folder may look like markup
        columns = said, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task = self._progress.add_task(text, total=total)
        self._start = time.monotonic()
        self._done, self._shown = 0, False

    def __enter__(self) -> Self:
        return self

    def advance(self) -> None:
        """Count one step."""
        self._done += 1
        if not self._shown and self._console.is_terminal and time.monotonic() - self._start > PATIENCE:
            self._progress.start()
            self._shown = True
        if self._shown and self._done % 8 == 0:
            self._progress.update(self._task, completed=self._done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._progress.stop()
