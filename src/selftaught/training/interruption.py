"""Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 stop training after the current step; a second signal stops it at once.

Slurm sends SIGUSR1 before the end of a job's time, if the job script requests it.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

from selftaught.errors import Interrupted
from selftaught.modules.processes import processes

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)]


NO_SIGNAL = 1000
"""Stands for a request that was not made by a signal; above all signal numbers."""


class Stop:
    """A request to stop training after the current step, by a signal or from another thread."""

    requested = False
    signal: int | None = None
    """The signal that requested it."""
    at_once = False
    """Whether a signal raises `Interrupted` instead of requesting a stop after the current step."""

    def request(self, number: int | None = None) -> None:
        """Request a stop after the current step, from a signal handler or another thread."""
        self.requested, self.signal = True, number

    def agreed(self) -> bool:
        """Whether to stop after this step: in all processes of a run after the same one, whichever got a signal."""
        number = processes().agree((self.signal or NO_SIGNAL) if self.requested else 0)
        if number and not self.requested:
            self.request(None if number == NO_SIGNAL else number)
        return number > 0

    @property
    def exit_code(self) -> int:
        """Exit code by the convention of shells: 128 + signal number, or 0 without a signal."""
        return 0 if self.signal is None else 128 + self.signal


@contextmanager
def stopped_at_once(stop: Stop) -> Iterator[None]:
    """Let a signal raise `Interrupted` within the block, which is simply repeated later, such as a probe.

    Raises:
        Interrupted: there was a signal before.
    """
    if stop.requested:
        raise Interrupted(stop.signal or NO_SIGNAL)
    stop.at_once = True
    try:
        yield
    finally:
        stop.at_once = False


@contextmanager
def stop_on_signals(stop: Stop) -> Iterator[None]:
    """Install signal handlers that request a stop within the block.

    Python allows this in the main thread only; in other threads the block has no effect. Ignored signals stay ignored:
    `nohup` ignores SIGHUP, and shells ignore SIGINT for background jobs.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        at_once = stop.requested or stop.at_once
        stop.request(number)
        if at_once:
            raise Interrupted(number)

    if current_thread() is not main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)}
    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
