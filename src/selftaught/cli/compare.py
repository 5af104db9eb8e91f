"""`selftaught compare`."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from selftaught.cli.output import print_result
from selftaught.display.console import LastingStream
from selftaught.errors import readable


def compare(
    *runs: Annotated[Path, Parameter(help="Run folders.")],
    out: Annotated[Path | None, Parameter(help="HTML page to write as well.")] = None,
) -> None:
    """Compare runs in one table."""
    from selftaught.report import compare, runs_among, write_report

    folders = runs_among(runs)
    if left := [readable(str(path)) for path in runs if path not in folders]:
        print(f"selftaught: skipped, not a run: {', '.join(left)}", file=LastingStream(sys.stderr))
    print_result(compare(folders))
    if out is not None:
        print(readable(str(write_report(folders, out))))
