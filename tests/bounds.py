"""Memory and time that end a test instead of the machine."""

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BYTES = 6 * 2**30
"""What no tiny run needs."""


@contextmanager
def bounded(seconds: int) -> Iterator[None]:
    """Let allocations fail and the block end with an error where it takes too much of either."""

    def stop(number, frame):
        raise TimeoutError(f"did not end within {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    limits = resource.getrlimit(resource.RLIMIT_DATA)
    used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (used + BYTES, limits[1]))
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_DATA, limits)
