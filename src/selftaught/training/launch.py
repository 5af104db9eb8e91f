"""How a process was started: alone, or as one of several by torchrun or srun of Slurm (from the environment).

Without torch, so that commands without processes start quickly.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from signal import SIGUSR1


@dataclass(frozen=True)
class Launch:
    """The place of a process among those of a run."""

    rank: int
    """Number of the process, from 0."""
    count: int
    """Number of processes, at least 2."""
    local_rank: int
    """Number of the process on its machine, from 0: the number of its GPU."""
    address: str
    """Host name where the processes find each other; a list of nodes in Slurm's notation, of which it is the first."""
    port: int
    attempt: str = "0"
    """Number of the restart, for torchrun's --max-restarts."""
    has_store: bool = False
    """Whether torchrun has opened the port already; otherwise the first process does."""


def launch(environment: Mapping[str, str] = os.environ) -> Launch | None:
    """The place of this process among several; None if it is the only one.

    A batch script of Slurm is no task of a job step, so a command without `srun` in it is a single process.
    """
    if all(name in environment for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")):
        launch = Launch(
            rank=int(environment["RANK"]),
            count=int(environment["WORLD_SIZE"]),
            local_rank=int(environment.get("LOCAL_RANK", "0")),
            address=environment["MASTER_ADDR"],
            port=int(environment["MASTER_PORT"]),
            attempt=environment.get("TORCHELASTIC_RESTART_COUNT", "0"),
            has_store=environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        )
        return launch if launch.count > 1 else None
    if "SLURM_STEP_NUM_TASKS" in environment and "SLURM_PROCID" in environment:
        nodes = environment.get("SLURM_STEP_NODELIST", "127.0.0.1")
        job = "".join(filter(str.isdigit, environment.get("SLURM_JOB_ID", "0")))
        step = environment.get("SLURM_STEP_ID", "0")
        launch = Launch(
            rank=int(environment["SLURM_PROCID"]),
            count=int(environment["SLURM_STEP_NUM_TASKS"]),
            local_rank=int(environment.get("SLURM_LOCALID", "0")),
            address=environment.get("MASTER_ADDR", nodes),
            port=int(environment.get("MASTER_PORT", 15000 + int(job[-4:] or 0))),
            attempt=f"{environment.get('SLURM_RESTART_COUNT', '0')}.{step}",
        )
        return launch if launch.count > 1 else None
    return None


def requeue(signal: int | None) -> bool:
    """Put the Slurm job of this process back into the queue if SIGUSR1 announced the end of its time.

    Returns:
        Whether it was; not outside of Slurm, and not after any other signal.
    """
    job = os.environ.get("SLURM_JOB_ID")
    if signal != SIGUSR1 or job is None or (command := shutil.which("scontrol")) is None:
        return False
    return subprocess.run([command, "requeue", job], check=False).returncode == 0
