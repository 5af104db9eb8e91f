"""Several runs at a time on one machine: one process per job, each with its share of threads.

A worker (`worker.py`) reads the indices of runs from its standard input and replies on its standard output. When the
input ends, because this process requests a stop or was killed, the worker saves a checkpoint and ends.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from queue import Empty, SimpleQueue

from selftaught.errors import UserError
from selftaught.runs.atomic import open_append
from selftaught.studies.folder import StudyFolder
from selftaught.training.interruption import Stop

ENVIRONMENT = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1), "MALLOC_TOP_PAD_": str(2**27)}
"""glibc keeps freed memory, as `cli/process.py` has it for a single run."""
POLL = 0.2
"""Seconds between two looks at the stop request."""


def run_in_processes(
    folder: StudyFolder, indices: Sequence[int], jobs: int, threads: int, stop: Stop, on_done: Callable[[int], None]
) -> bool:
    """Do the runs of a study with these indices.

    Args:
        folder: the study's folder.
        indices: of `Grid.cells`.
        jobs: number of processes.
        threads: CPU threads of each.
        stop: a request to stop.
        on_done: called with the index of each finished run.

    Returns:
        Whether all are done; False after a stop.

    Raises:
        UserError: a run failed; the other processes are stopped.
    """
    queue: SimpleQueue[int] = SimpleQueue()
    for index in indices:
        queue.put(index)
    workers = [_start(folder.path, number, threads) for number in range(min(jobs, len(indices)))]
    try:
        with ThreadPoolExecutor(len(workers)) as pool:
            futures: list[Future[bool]] = [pool.submit(_feed, worker, queue, stop, on_done) for worker in workers]
            try:
                _wait(futures, stop)
            finally:
                stop_all = stop.requested or any(future.done() and future.exception() for future in futures)
                if stop_all or sys.exc_info()[0] is not None:
                    _end_input(workers)
        results = [future.result() for future in futures]
        return all(results)
    finally:
        _end_input(workers)
        for worker in workers:
            worker.wait()
            if worker.stdout is not None:
                worker.stdout.close()


def _wait(futures: Sequence[Future[bool]], stop: Stop) -> None:
    """Wait until all are done, one failed, or a stop is requested."""
    pending = set(futures)
    while pending and not stop.requested:
        done, pending = wait(pending, POLL)
        if any(future.exception() for future in done):
            return


def _start(folder: Path, number: int, threads: int) -> "subprocess.Popen[str]":
    log = open_append(folder / f"worker-{number + 1}.log", folder)
    environment = {**ENVIRONMENT, **os.environ, "OMP_NUM_THREADS": str(threads)}
    with log:
        # In a session of its own, so that Ctrl-C reaches this process only, which then ends the worker's input.
        return subprocess.Popen(
            [sys.executable, "-m", "selftaught.studies.worker", str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment,
            start_new_session=True,
        )  # fmt: skip


def _feed(
    worker: "subprocess.Popen[str]", queue: "SimpleQueue[int]", stop: Stop, on_done: Callable[[int], None]
) -> bool:
    """Give a worker one run after the other; False if it was stopped."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    while not stop.requested:
        try:
            index = queue.get_nowait()
        except Empty:
            return True
        try:
            worker.stdin.write(f"{index}\n")
            worker.stdin.flush()
        except (OSError, ValueError):  # it ended, or its input was closed for a stop
            return False
        reply = json.loads(worker.stdout.readline() or "{}")
        if "error" in reply:
            raise UserError(reply["error"])
        if not reply.get("done"):
            if reply or stop.requested:
                return False
            raise UserError("a process ended unexpectedly, perhaps for lack of memory: see worker-*.log.")
        on_done(index)
    return False


def _end_input(workers: Sequence["subprocess.Popen[str]"]) -> None:
    for worker in workers:
        if worker.stdin is not None and not worker.stdin.closed:
            try:
                worker.stdin.close()
            except OSError:  # it ended
                continue
