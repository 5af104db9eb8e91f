"""Worker processes that render shards side by side.

They are spawned, not forked: Mitsuba has threads, and so may the process of the user.
"""

import os
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from selftaught.errors import UserError
from selftaught.rendering.folder import RenderSettings
from selftaught.rendering.shards import rows_of, shard_path, write_shard


@dataclass(frozen=True)
class Job:
    """The scenes to render, the same for all workers."""

    folder: Path
    scenes: int
    settings: RenderSettings
    photos: NDArray[np.uint8] | None


def render_shards(job: Job, shards: list[int], workers: int) -> Generator[None]:
    """Render shards in `workers` processes; yields after every scene. Ending the iteration ends the workers.

    Raises:
        UserError: a shard cannot be written, or a worker ended.
    """
    context = get_context("spawn")
    tasks, messages = context.SimpleQueue(), context.SimpleQueue()
    for number in [*shards, *[None] * workers]:
        tasks.put(number)
    processes = [context.Process(target=_work, args=(job, tasks, messages), daemon=True) for _ in range(workers)]
    reader: Any = messages._reader  # type: ignore[attr-defined]  # SimpleQueue has no timeout of its own
    try:
        with _interrupts_blocked():
            for process in processes:
                process.start()
        running = list(processes)
        while running:
            ready = wait([reader, *(process.sentinel for process in running)])
            while reader.poll():
                if (message := messages.get()) is not None:
                    raise UserError(message)
                yield
            if reader not in ready:
                ended = [process for process in running if not process.is_alive()]
                if failed := next((process for process in ended if process.exitcode), None):
                    raise UserError(_reason(failed.exitcode))
                running = [process for process in running if process not in ended]
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
        for process in processes:
            if process.pid is not None:
                process.join()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Delay Ctrl-C to the end of the block; processes that are started in it never get it, not even while they import.

    Ctrl-C reaches all processes of a terminal, but only the parent reacts to it and ends the others.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work(job: Job, tasks: Any, messages: Any) -> None:
    """Render shards until there are no more, or the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be blocked
    parent = os.getppid()

    def on_scene() -> None:
        if os.getppid() != parent:  # killed, without a chance to end its workers
            os._exit(1)
        messages.put(None)

    while (number := tasks.get()) is not None:
        try:
            path, numbers = shard_path(job.folder, number), rows_of(number, job.scenes, job.settings.shard)
            write_shard(path, numbers, job.settings.seed, job.settings.size, job.photos, on_scene)
        except UserError as error:
            with suppress(OSError):
                messages.put(str(error))
            return


def _reason(exit_code: int | None) -> str:
    what = f"was killed by signal {-exit_code}" if exit_code and exit_code < 0 else "failed"
    return (
        f"a worker process {what}; finished shards are kept: repeat the command, with fewer --workers if memory is "
        "short."
    )
