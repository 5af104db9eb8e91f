"""`selftaught quality`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from selftaught.cli.options import Count, Device, Json, Size
from selftaught.cli.output import print_result


def quality(
    run: Annotated[Path, Parameter(help="A run folder.")],
    /,
    *,
    data: Annotated[str, Parameter(help="Images, labeled or not; their test part where there is one.")],
    images: Annotated[Count, Parameter(help="Number of images.")] = 2000,
    size: Size = None,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Measure the features of every layer without labels: effective rank, spread, alignment and dead channels."""
    from selftaught.analysis.quality import render
    from selftaught.api.run import Run

    table = Run(run).quality(data, images=images, size=size, device=device)
    print_result(table.to_json() if json_ else render(table))
