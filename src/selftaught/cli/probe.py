"""`selftaught probe`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from selftaught.cli.errors import integers
from selftaught.cli.options import Count, Device, Json, Size
from selftaught.cli.output import print_result


def probe(
    run: Annotated[Path, Parameter(help="A run folder.")],
    /,
    *,
    data: Annotated[
        str, Parameter(help="Labeled images: a folder with one subfolder per class, parquet, a known name.")
    ],
    seeds: Annotated[Count, Parameter(help="Number of probe seeds; reported as mean ± std.")] = 1,
    protocol: Annotated[
        Literal["fast", "paper", "knn"],
        Parameter(help="fast: closed form. paper: SGD with augmentation, as in the papers. knn: nearest neighbors."),
    ] = "fast",
    size: Size = None,
    limit: Annotated[
        int | None, Parameter(converter=integers, help="Number of training images; all test images are used.")
    ] = None,
    labels: Annotated[Path | None, Parameter(help="CSV file with the columns path and label.")] = None,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Probe every layer of a run, compared with random weights, raw pixels and chance."""
    from selftaught.api.run import Run
    from selftaught.evaluation.table import render

    table = Run(run).probe(data, seeds=seeds, protocol=protocol, size=size, limit=limit, labels=labels, device=device)
    print_result(table.to_json() if json_ else render(table))
