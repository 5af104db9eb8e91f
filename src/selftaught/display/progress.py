"""Feedback on standard error: a progress bar for long steps, and one line about what was read."""

import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from selftaught.display.console import stderr_console

PATIENCE = 1.0
"""Seconds before a bar is shown."""
_announced: set[str] = set()


def announce(line: str) -> None:
    """Print a line on standard error, once per process: a command may open the same images several times."""
    if line not in _announced:
        _announced.add(line)
        stderr_console(highlight=False, markup=False, soft_wrap=True).print(line)


class Meter:
    """Counts steps, and shows them on standard error: only on a terminal, only after a second, gone when done.

    Args:
        text: what is being done.
        total: number of steps; None where it is not known, and then the time that passed is shown.
    """

    def __init__(self, text: str, total: int | None = None) -> None:
        self._console = stderr_console()
        described = TextColumn("{task.description}", markup=False)  # the name of a folder may look like markup
        clock = TimeElapsedColumn() if total is None else TimeRemainingColumn()
        columns = described, BarColumn(), MofNCompleteColumn(), clock
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task = self._progress.add_task(text, total=total)
        self._start = time.monotonic()
        self._done, self._shown = 0, False

    def __enter__(self) -> Self:
        return self

    def advance(self, steps: int = 1) -> None:
        """Count steps."""
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
