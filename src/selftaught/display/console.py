"""A console that stops printing when its reader is gone: `selftaught pretrain 2>&1 | head` must not stop training."""

import io
import os
import sys
from typing import Any, TextIO, cast

from rich.console import Console


class LastingStream:
    """A text stream that discards everything once a write has failed, instead of raising again.

    Args:
        stream: where text goes, for example standard error; None, which Python has for a closed one, discards all.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream, self._failed = stream or io.StringIO(), stream is None

    def write(self, text: str) -> int:
        """Write text while that is possible; returns its length."""
        if not self._failed:
            try:
                self._stream.write(text)
            except OSError as error:
                self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Flush while that is possible."""
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
        """Everything else (`isatty`, `encoding`, `fileno`) is the stream's own."""
        return getattr(self._stream, name)


def stderr_console(**options: Any) -> Console:
    """A console on `sys.stderr` that never raises when writing fails; `options` as for `rich.console.Console`."""
    return Console(file=cast(TextIO, LastingStream(sys.stderr)), **options)


def _discard_output(stream: TextIO) -> None:
    """Let the stream's descriptor write to nowhere: what is still buffered would fail again when the process ends."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # no file of the operating system
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
