"""Dying at a chosen moment: between two operations on files, half-way through a write, or with a disk that is full."""

import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

CALLS = ("open", "fsync", "replace", "unlink", "mkdir")


def in_child(work: Callable[[], object]) -> int:
    """Do something in a fork; what `os.waitpid` says of its end (0, an exit code, or minus a signal)."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def die_before(number: int) -> None:
    """Kill this process with SIGKILL before its `number`-th operation on files: what was buffered by then is lost.

    Operations are seen by an audit hook (opens, renames, removals) and by `os.fsync`, which has no audit event.
    """
    seen = 0

    def count() -> None:
        nonlocal seen
        seen += 1
        if seen > number:
            os.kill(os.getpid(), signal.SIGKILL)

    events = {"open", "os.rename", "os.remove", "os.mkdir"}
    sys.addaudithook(lambda event, _: count() if event in events else None)
    fsync = os.fsync

    def counted(handle: int) -> None:
        count()
        fsync(handle)
        count()

    os.fsync = counted


def limit_files(size: int) -> None:
    """Files of this process may not grow past this many bytes: to the writer a disk that is full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then it is an OSError, as with a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def files(folder: Path) -> dict[str, bytes]:
    """Everything in a folder, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
