"""A console that tolerates a closed pipe: `selftaught pretrain 2>&1 | head` must not stop training."""

import io
import os
import sys
from typing import Any, TextIO, cast

from rich.console import Console


class LastingStream:
    """A text stream that discards all output after a failed write instead of raising.

    Args:
        stream: the underlying stream; None, which Python has for a closed one, discards all output.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream, self._failed = stream or io.StringIO(), stream is None

    def write(self, text: str) -> int:
        """Write text unless a write has failed before; return its length."""
        if not self._failed:
            try:
                self._stream.write(text)
            except OSError as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Flush unless a write has failed before."""
        if not self._failed:
            try:
                self._stream.flush()
            except OSError as error:
                self._fail(error)

    def _fail(self, error: OSError) -> None:
        self._failed = True
        if isinstance(error, BrokenPipeError):
            _discard_output(self._stream)

    def __getattr__(self, name: str) -> Any:
        """Delegate everything else (`isatty`, `encoding`, `fileno`) to the stream."""
        return getattr(self._stream, name)


_silent = False


def silence() -> None:
    """Print nothing more on consoles made from now on: for processes of a run whose first process prints."""
    global _silent
    _silent = True


def stderr_console(**options: Any) -> Console:
    """A console on `sys.stderr` that does not raise on failed writes; `options` as for `rich.console.Console`."""
    return Console(file=cast(TextIO, LastingStream(sys.stderr)), quiet=_silent, **options)


def _discard_output(stream: TextIO) -> None:
    """Redirect the stream's descriptor to the null device, or flushing its buffer at exit would fail again."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # not backed by a file descriptor
        return
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)
