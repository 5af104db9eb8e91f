"""Runs of a study as jobs of a Slurm cluster, submitted by submitit as one array.

A job does one run (`worker.do_cell`) in the study's folder, which all nodes must share. A job at the end of its time
limit is queued again by submitit and continues from its last checkpoint. If this process ends, the jobs go on, and the
same command waits for what they have not finished.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Any

from selftaught.errors import UserError
from selftaught.studies.folder import StudyFolder
from selftaught.studies.worker import do_cell
from selftaught.training.interruption import Stop

if TYPE_CHECKING:
    import submitit

MINUTES = 60
"""Time limit of a job, unless the options have one."""
POLL = 2.0
"""Seconds between two looks at the jobs."""


@dataclass(frozen=True)
class CellJob:
    """The work of a job. submitit sends it to the node, and calls `checkpoint` before the time limit."""

    folder: Path
    index: int
    """Of `Grid.cells`."""

    def __call__(self) -> dict[str, object]:
        """Do the run, or continue it: the reply of `do_cell`."""
        folder = StudyFolder(self.folder)
        state = folder.read_state()
        assert state is not None
        return do_cell(folder, state, state.grid, self.index, Stop())

    def checkpoint(self) -> "submitit.helpers.DelayedSubmission":
        """Queue the same job again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def parse_options(options: Sequence[str]) -> dict[str, str]:
    """Options of sbatch: ["partition=gpu", "gpus-per-node=1"] -> {"partition": "gpu", "gpus-per-node": "1"}.

    Raises:
        UserError: submitit is not installed, an option has no value, or `time` is not a number of minutes.
    """
    if find_spec("submitit") is None:
        raise UserError("--slurm needs submitit: pip install 'selftaught[slurm]'.")
    pairs = [option.partition("=") for option in options]
    for option, (name, _, value) in zip(options, pairs, strict=True):
        if not name or not value or name.startswith("-") or not name.replace("-", "").isalnum() or "\n" in value:
            raise UserError(
                f"--slurm expects options of sbatch as name=value, such as partition=gpu gpus-per-node=1 time=240, got "
                f"{option!r}."
            )
    parsed = {name: value for name, _, value in pairs}
    if not parsed.get("time", "1").isdecimal() or parsed.get("time") == "0":
        raise UserError(f"--slurm time=... expects a number of minutes, such as time=240, got {parsed['time']!r}.")
    return parsed


def run_on_slurm(
    folder: StudyFolder,
    indices: Sequence[int],
    jobs: int,
    threads: int,
    options: Mapping[str, str],
    stop: Stop,
    on_done: Callable[[int], None],
    cluster: str = "slurm",
) -> bool:
    """Do the runs of a study with these indices.

    Args:
        folder: the study's folder, which all nodes must share.
        indices: of `Grid.cells`.
        jobs: number of jobs that may run at a time.
        threads: CPU threads of each.
        options: further options of sbatch, see `parse_options`.
        stop: a request to stop, which cancels the jobs. Their runs are continued from the last checkpoint.
        on_done: called with the index of each finished run.
        cluster: "slurm", or "local" for processes of this machine.

    Returns:
        Whether all are done; False after a stop.

    Raises:
        UserError: there is no Slurm on this machine, or a run failed; the other jobs are canceled.
    """
    executor = _executor(folder.path.resolve() / "slurm", jobs, threads, options, cluster)
    with executor.batch():
        pending = {index: executor.submit(CellJob(folder.path.resolve(), index)) for index in indices}
    try:
        while pending:
            if stop.requested:
                return False
            for index in [index for index, job in pending.items() if job.done()]:
                job = pending.pop(index)
                if job.exception() is not None:
                    raise UserError(f"a job failed, see {job.paths.stderr}.")
                reply = job.result()
                if "error" in reply:
                    raise UserError(str(reply["error"]))
                on_done(index)
            sleep(POLL if cluster == "slurm" else 0.1)
        return True
    finally:
        for job in pending.values():
            job.cancel(check=False)


def _executor(logs: Path, jobs: int, threads: int, options: Mapping[str, str], cluster: str) -> Any:
    import submitit

    try:
        executor = submitit.AutoExecutor(logs, cluster=cluster)
    except RuntimeError as error:
        raise UserError("--slurm needs the command sbatch: run it on a login node of a Slurm cluster.") from error
    further = {name: value for name, value in options.items() if name != "time"}
    executor.update_parameters(
        timeout_min=int(options.get("time", MINUTES)), cpus_per_task=threads, slurm_array_parallelism=jobs,
        slurm_additional_parameters=further,
    )  # fmt: skip
    return executor
