"""`selftaught filters`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from selftaught.cli.options import Json
from selftaught.cli.output import print_picture


def filters(
    run: Annotated[Path, Parameter(help="A run folder, where the picture is written.")],
    /,
    *others: Annotated[Path, Parameter(help="Further run folders, such as a supervised one.")],
    json_: Json = False,
) -> None:
    """Draw the first-layer filters of one or several runs side by side, beside random weights."""
    from selftaught.api.run import Run

    print_picture(Run(run).filters(*map(Run, others)), json_)
