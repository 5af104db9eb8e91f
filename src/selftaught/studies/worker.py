"""A process that does runs of a study: `python -m selftaught.studies.worker FOLDER`, started by `jobs.py`.

It reads one index per line and writes one JSON object per line: `{"done": true}`, `{"done": false}` after a stop,
or `{"error": "..."}`.
"""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from selftaught.errors import UserError, is_out_of_memory
from selftaught.studies.cells import run_cell
from selftaught.studies.folder import State, StudyFolder
from selftaught.studies.grid import Grid
from selftaught.training.interruption import Stop, stop_on_signals


def main(path: str) -> None:
    """Do the runs that standard input names, until it ends."""
    # What libraries print must not mix with the replies.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    folder, stop = StudyFolder(Path(path)), Stop()
    state = folder.read_state()
    assert state is not None
    grid = state.grid
    with stop_on_signals(stop):
        for index in _indices():
            reply = do_cell(folder, state, grid, index, stop)
            print(json.dumps(reply), file=replies, flush=True)
            if not reply.get("done"):
                return


def do_cell(folder: StudyFolder, state: State, grid: Grid, index: int, stop: Stop) -> dict[str, object]:
    """Do the run with an index of `Grid.cells`; the reply as above."""
    cell = grid.cells[index]
    try:
        return {"done": run_cell(folder, state, grid, cell, stop)}
    except UserError as error:
        return {"error": f"{cell.name}: {error}"}
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return {"error": f"{cell.name}: out of memory: use fewer --jobs, or a smaller size or batch."}


def _indices() -> Iterator[int]:
    """The indices, read in a thread of its own, which sends this process a signal to stop when the input ends."""
    lines: SimpleQueue[str] = SimpleQueue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os.kill(os.getpid(), signal.SIGTERM)  # to the main thread, which it wakes
        lines.put("")

    Thread(target=read, daemon=True).start()
    while line := lines.get():
        yield int(line)


if __name__ == "__main__":
    main(sys.argv[1])
