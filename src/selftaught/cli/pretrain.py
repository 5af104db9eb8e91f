"""`selftaught pretrain`; its flags are in `flags`."""

from collections.abc import Sequence
from typing import Any

from selftaught.cli.output import print_result
from selftaught.errors import UserError


def pretrain(*source: str) -> None:
    """Pretrain an encoder on unlabeled images and write a run folder."""


def run_pretrain(data: Sequence[str], profile: bool = False, **options: Any) -> int:
    """Pretrain, or measure a profile; returns the exit code."""
    if not profile:
        from selftaught.api.pretrain import pretrain
        from selftaught.training.interruption import Stop

        stop = Stop()
        run = pretrain(data, stop=stop, **options)
        return 0 if run.finished else stop.exit_code
    from selftaught.api.profile import profile as measure
    from selftaught.api.profile import render

    for name in ("out", "resume"):
        if options.pop(name, None):
            raise UserError(f"--profile writes no run: remove --{name}.")
    print_result(render(measure(data, **options)))
    return 0
