"""`selftaught audit`."""

from typing import Annotated

from cyclopts import Parameter

from selftaught.cli.options import Count, Device, Json, RunPath
from selftaught.cli.output import print_result


def audit(
    run: RunPath,
    /,
    *,
    data: Annotated[str | None, Parameter(help="Images; default: held-out images of the run's own source.")] = None,
    images: Annotated[Count, Parameter(help="Number of images.")] = 1000,
    seeds: Annotated[Count, Parameter(help="Number of different views of each image.")] = 1,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Check a run for shortcuts: its pretext accuracy when cues are removed from the images or planted in them."""
    from selftaught.analysis.audit_table import render
    from selftaught.api.run import Run

    table = Run(run).audit(data, images=images, seeds=seeds, device=device)
    print_result(table.to_json() if json_ else render(table))
