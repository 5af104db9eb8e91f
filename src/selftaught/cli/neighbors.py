"""`selftaught neighbors`."""

from typing import Annotated

from cyclopts import Parameter

from selftaught.cli.options import Count, Device, Json, Layers, RunPath, Size, TestData
from selftaught.cli.output import print_picture, print_result


def neighbors(
    run: RunPath,
    /,
    *,
    data: TestData,
    layers: Layers = (),
    queries: Annotated[Count, Parameter(help="Number of images whose neighbors are drawn.")] = 6,
    k: Annotated[Count, Parameter(help="Number of neighbors of each.")] = 5,
    images: Annotated[Count, Parameter(help="Number of images among which neighbors are searched.")] = 2000,
    size: Size = None,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Draw the nearest neighbors of images at every layer, beside those of random weights.

    With labels, also the fraction of neighbors of the same class, over all images.
    """
    from selftaught.analysis.neighbors import render
    from selftaught.api.run import Run

    picture = Run(run).neighbors(
        data, layers=layers, queries=queries, k=k, images=images, size=size, device=device
    )  # fmt: skip
    if not json_ and picture.facts["chance"] is not None:
        print_result(render(picture.facts))
    print_picture(picture, json_)
