"""Progress on standard error: a bar or plain lines for long operations, and one-line notes."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from selftaught.display.console import stderr_console

PATIENCE = 1.0
"""Delay in seconds before a bar appears."""
REFRESH = 0.05
"""Minimum time in seconds between two updates of a bar."""
PLAIN_EVERY = 30.0
"""Time in seconds between two plain lines."""
_announced: set[str] = set()


def announce(line: str) -> None:
    """Print a line on standard error, once per process because a command may open the same images repeatedly."""
    if line not in _announced:
        _announced.add(line)
        stderr_console(highlight=False, markup=False, soft_wrap=True).print(line)


def duration(seconds: float) -> str:
    """A length of time in words: "1 second", "40 seconds", "12 minutes", "3.5 hours", "2.1 days"."""
    if seconds < 99.5:
        return f"{seconds:.0f} second" + "s" * (round(seconds) != 1)
    minutes = seconds / 60
    if minutes < 99.5:
        return f"{minutes:.0f} minutes"
    return f"{minutes / 60:.1f} hours" if minutes < 60 * 48 else f"{minutes / 60 / 24:.1f} days"


def time_left(elapsed: float, done: int, total: int | None) -> str:
    """The remaining time of an operation, if its parts take equally long: "12 minutes left".

    Args:
        elapsed: seconds for the parts that are done.
        done: number of these parts.
        total: number of all parts; None if unknown.

    Returns:
        The words; empty if nothing is done, nothing is left or the total is unknown.
    """
    return "" if total is None or not 0 < done < total else f"{duration(elapsed / done * (total - done))} left"


class Meter:
    """Progress of a long operation on standard error, with the remaining time.

    On a terminal this is a bar, shown after `PATIENCE` seconds and removed at the end. Elsewhere it is a plain line
    every `PLAIN_EVERY` seconds, such as "decoding photos 3,000 of 10,000 · 30 s · 70 seconds left".

    Args:
        text: description of the operation.
        total: number of steps; None if unknown, in which case the elapsed time is shown.
        shown: whether anything is shown.
        plain_every: number of steps between two plain lines, instead of a time.
        console: where to; standard error by default.
    """

    def __init__(
        self,
        text: str,
        total: int | None = None,
        *,
        shown: bool = True,
        plain_every: int | None = None,
        console: Console | None = None,
    ) -> None:
        self.text, self.total, self.plain_every = text, total, plain_every
        self._enabled = shown
        self._console = console or stderr_console()
        columns = (
            TextColumn("{task.description}", markup=False),  # a folder name may look like markup
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn() if total is None else TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
        )
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._task = self._progress.add_task(text, total=total, detail="")
        self._done, self._detail, self._visible = 0, "", False
        self.begin()

    def begin(self, done: int = 0, seconds: float = 0.0) -> None:
        """Start or continue after `done` steps that took `seconds` seconds."""
        self._done = self._plain_done = done
        now = time.monotonic()
        self._start, self._refreshed, self._plain = now - seconds, now, now
        self._patient_until = now + PATIENCE
        self._progress.update(self._task, completed=done)  # not part of the measured speed

    def __enter__(self) -> Self:
        return self

    def advance(self, steps: int = 1, detail: str | None = None) -> None:
        """Advance the counter; `detail` replaces the text after it."""
        self._done += steps
        self._detail = self._detail if detail is None else detail
        if not self._enabled:
            return
        if self._console.is_terminal:
            self._show_bar(time.monotonic())
        else:
            self._print_lines(time.monotonic())

    def _show_bar(self, now: float) -> None:
        if not self._visible and now > self._patient_until:
            self._progress.start()
            self._visible = True
        if self._visible and now - self._refreshed >= REFRESH:
            self._progress.update(self._task, completed=self._done, detail=self._detail)
            self._refreshed = now

    def _print_lines(self, now: float) -> None:
        if self.plain_every is None:
            due = now - self._plain >= PLAIN_EVERY
        else:
            due = self._done // self.plain_every > self._plain_done // self.plain_every or self._done == self.total
        if due:
            count = f"{self._done:,}" if self.total is None else f"{self._done:,} of {self.total:,}"
            elapsed = now - self._start
            parts = [
                f"{self.text} {count}",
                f"{elapsed:.0f} s",
                time_left(elapsed, self._done, self.total),
                self._detail,
            ]
            self._console.print(" · ".join(filter(None, parts)), soft_wrap=True, markup=False, highlight=False)
            self._plain, self._plain_done = now, self._done

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._visible:
            self._progress.stop()
