"""`selftaught report`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from selftaught.cli.options import RunPath
from selftaught.errors import readable


def report(
    run: RunPath,
    /,
    *,
    out: Annotated[Path | None, Parameter(help="HTML page to write; default: report.html in the run.")] = None,
) -> None:
    """Write the report of a run as one self-contained HTML page."""
    from selftaught.api.run import Run

    print(readable(str(Run(run).report(out))))
