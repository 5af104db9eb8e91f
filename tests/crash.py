"""Dying at a chosen moment: between two operations on files, or with a disk that is full."""

import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import torch


def in_child(work: Callable[[], object]) -> tuple[int, str]:
    """Do something in a fork.

    Returns:
        how it ended (0; 2 where a user's mistake was refused; 1 after another error; minus the signal that killed it),
        and what came of it or was said.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said, code = "", 1
        try:
            torch.set_num_threads(1)  # the threads of the parent are not there, and OpenMP would wait for them
            said, code = str(work()), 0
        except ValueError as error:
            said, code = str(error), 2
        except BaseException as error:
            said = repr(error)
        finally:
            os.write(writing, said.encode())
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def die_before(number: int) -> None:
    """Kill this process with SIGKILL before its `number`-th operation on files: what was buffered by then is lost.

    Operations are seen by an audit hook (opens, renames, removals), and around `os.fsync`, which has no audit event.
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
