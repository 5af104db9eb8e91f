"""`selftaught invariance`."""

from typing import Annotated

from cyclopts import Parameter

from selftaught.cli.options import Count, Device, Json, RunPath, Size, TestData
from selftaught.cli.output import print_result


def invariance(
    run: RunPath,
    /,
    *,
    data: TestData,
    images: Annotated[Count, Parameter(help="Number of images.")] = 1000,
    seeds: Annotated[Count, Parameter(help="Number of seeds of the transformations.")] = 1,
    size: Size = None,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Measure which transformations every layer of a run is invariant to: rotations, crops, colors, shifts and more."""
    from selftaught.analysis.invariance import render
    from selftaught.api.run import Run

    table = Run(run).invariance(data, images=images, seeds=seeds, size=size, device=device)
    print_result(table.to_json() if json_ else render(table))
