"""`selftaught demo`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from selftaught.cli.output import print_result


def demo(
    *,
    minutes: Annotated[float, Parameter(help="Minutes of pretraining.")] = 3.0,
    out: Annotated[Path | None, Parameter(help="Run folder, new or empty; default: a new runs/demo.")] = None,
    data: Annotated[
        str | None, Parameter(help="Labeled images to probe on as well; default: CIFAR-10 in $SELFTAUGHT_DATA.")
    ] = None,
) -> int:
    """Pretrain on one bundled photo, probe every layer, write the report: no network, no files, a few minutes."""
    from selftaught.api.demo import demonstrate
    from selftaught.training.interruption import Stop

    stop = Stop()
    demonstrate(minutes, out, data, on_result=print_result, stop=stop)
    return stop.exit_code
