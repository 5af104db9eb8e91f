"""Processes that start at once: forks of a server that has imported what takes seconds.

Unlike a fork of the tests they inherit neither threads nor patched modules. A program that `python` starts is needed
where the start itself is tested.
"""

import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from multiprocessing.context import ForkServerContext
from pathlib import Path
from subprocess import TimeoutExpired

import torch

IMPORTED = ("selftaught.api.pretrain", "selftaught.cli.flags", "selftaught.encoders.convnet", "lightning_fabric")


def server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    return context


class Fork:
    """A function in a process of its own, with the methods of `subprocess.Popen`.

    Args:
        work: a function of a module; its exit code is that of `sys.exit`, 1 after another error, otherwise 0.
        arguments, options: of the function.
        environment: all environment variables; those of this process by default.
    """

    def __init__(
        self,
        work: Callable[..., object],
        *arguments: object,
        environment: Mapping[str, str] | None = None,
        **options: object,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fork"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        variables = dict(os.environ if environment is None else environment)
        work = partial(work, *arguments, **options)
        self.process = server().Process(target=_begin, args=(self.folder, variables, work))
        self.process.start()

    @property
    def returncode(self) -> int | None:
        """The exit code, or minus the number of the signal that ended the process; None while it runs."""
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: int) -> None:
        if self.process.pid is not None and self.poll() is None:
            os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def wait(self, timeout: float | None = None) -> int | None:
        self.process.join(timeout)
        return self.process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Standard output and standard error, when the process has ended."""
        if self.wait(timeout) is None:
            raise TimeoutExpired(str(self.process), timeout or 0)
        return self._written("out"), self._written("err")

    def _written(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""


def _begin(folder: Path, variables: dict[str, str], work: Callable[[], object]) -> None:
    os.environ.clear()
    os.environ.update(variables)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells let background jobs ignore it
    for handle, name in ((1, "out"), (2, "err")):
        file = os.open(folder / name, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(file, handle)
        os.close(file)
    if "OMP_NUM_THREADS" in variables:
        torch.set_num_threads(int(variables["OMP_NUM_THREADS"]))  # which torch read when it was imported
    sys.stdout, sys.stderr = (open(handle, "w", buffering=1) for handle in (1, 2))  # noqa: PTH123, SIM115
    work()


def run_command(*arguments: object, patch: Callable[[], object] | None = None) -> None:
    """Do what the program `selftaught` does with these arguments, after a patch."""
    from selftaught import cli

    if patch is not None:
        patch()
    sys.argv = ["selftaught", *map(str, arguments)]
    sys.exit(cli.main())
