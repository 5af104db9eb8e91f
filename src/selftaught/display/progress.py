"""Progress on standard error: a bar for long operations, and one-line notes."""

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from selftaught.display.console import stderr_console

PATIENCE = 1.0
"""Delay in seconds before a bar appears."""
_announced: set[str] = set()


def announce(line: str) -> None:
    """Print a line on standard error, once per process because a command may open the same images repeatedly."""
    if line not in _announced:
        _announced.add(line)
        stderr_console(highlight=False, markup=False, soft_wrap=True).print(line)


class Meter:
    """A progress bar on standard error: only on a terminal, shown after `PATIENCE` seconds, removed at the end.

    Args:
        text: description of the operation.
        total: number of steps; None if unknown, in which case the elapsed time is shown.
    """

    def __init__(self, text: str, total: int | None = None) -> None:
        self._console = stderr_console()
        description = TextColumn("{task.description}", markup=False)  # a folder name may look like markup
        clock = TimeElapsedColumn() if total is None else TimeRemainingColumn()
        columns = description, BarColumn(), MofNCompleteColumn(), clock
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task = self._progress.add_task(text, total=total)
        self._start = time.monotonic()
        self._done, self._shown = 0, False

    def __enter__(self) -> Self:
        return self

    def advance(self, steps: int = 1) -> None:
        """Advance the counter."""
        self._done += steps
        if not self._shown and self._console.is_terminal and time.monotonic() - self._start > PATIENCE:
            self._progress.start()
            self._shown = True
        if self._shown and (steps > 1 or self._done % 8 == 0):
            self._progress.update(self._task, completed=self._done)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._shown:
            self._progress.stop()
