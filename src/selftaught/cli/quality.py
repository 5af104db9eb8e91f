"""`selftaught quality`."""

from typing import Annotated

from cyclopts import Parameter

from selftaught.cli.options import Count, Device, Json, RunPath, Size, TestData
from selftaught.cli.output import print_result


def quality(
    run: RunPath,
    /,
    *,
    data: TestData,
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
