"""Several processes of one run, started as torchrun does, without torchrun's own four seconds."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from torch.distributed import TCPStore

from forks import Fork

STORES: list[TCPStore] = []
HERE = Path(__file__).parent
ROOT = HERE.parent


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def environment(rank: int, count: int, port: int, **more: str) -> dict[str, str]:
    """What torchrun sets, for processes on this machine."""
    paths = [str(path) for path in (ROOT / "src", HERE, HERE / "pretext")] + [os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "OMP_NUM_THREADS": "1",
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        **more,
    }  # fmt: skip


def environments(count: int, **more: str) -> list[dict[str, str]]:
    """That of each process of a run."""
    store = TCPStore(
        "127.0.0.1", 0, None, True, wait_for_workers=False
    )  # torchrun has it, so it outlives all processes
    STORES.append(store)
    more = {"TORCHELASTIC_USE_AGENT_STORE": "True", **more}
    return [environment(rank, count, store.port, **more) for rank in range(count)]


def start(arguments: list[str], count: int, **more: str) -> list[subprocess.Popen[str]]:
    """Start `python ARGUMENTS` `count` times, with their outputs captured."""
    return [started(arguments, variables) for variables in environments(count, **more)]


def fork(count: int, work: Callable[..., object], *arguments: object, **more: str) -> list[Fork]:
    """Call a function of a module in `count` processes, which need not import torch."""
    return [Fork(work, *arguments, environment=variables) for variables in environments(count, **more)]


def started(arguments: list[str], variables: dict[str, str]) -> subprocess.Popen[str]:
    """Start `python ARGUMENTS` once, with its output captured."""
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen([sys.executable, *arguments], env=variables, **output)


def finish(children: Sequence[subprocess.Popen[str] | Fork], seconds: float = 240) -> list[tuple[int, str]]:
    """Exit code and output of each, in order; all are ended when one takes longer."""
    try:
        outputs = ["".join(filter(None, child.communicate(timeout=seconds))) for child in children]
    finally:
        for child in children:
            child.kill()
    return [(child.returncode, output) for child, output in zip(children, outputs, strict=True)]
