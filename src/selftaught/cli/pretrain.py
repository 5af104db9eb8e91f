"""`selftaught pretrain`; its flags are in `flags`."""

import shlex
from collections.abc import Sequence
from typing import Any

from selftaught.cli.output import print_result
from selftaught.errors import UserError, readable
from selftaught.training.launch import launch, requeue


def pretrain(*source: str) -> None:
    """Pretrain an encoder on unlabeled images and write a run folder."""


def run_pretrain(data: Sequence[str], profile: bool = False, **options: Any) -> int:
    """Pretrain, or measure a profile; returns the exit code."""
    if not profile:
        from selftaught.api.pretrain import pretrain
        from selftaught.display.progress import announce
        from selftaught.training.interruption import Stop

        stop = Stop()
        run, place = pretrain(data, stop=stop, **options), launch()
        first = place is None or place.rank == 0
        if first and run.finished:
            announce(f"next: selftaught probe {shlex.quote(readable(str(run.path)))} --data LABELED_IMAGES")
        elif first:
            requeue(stop.signal)
        return 0 if run.finished else stop.exit_code
    if launch() is not None:
        raise UserError("--profile measures one process: run it without torchrun or srun.")
    from selftaught.api.profile import profile as measure
    from selftaught.api.profile import render

    for name in ("out", "resume"):
        if options.pop(name, None):
            raise UserError(f"--profile writes no run: remove --{name}.")
    print_result(render(measure(data, **options)))
    return 0
