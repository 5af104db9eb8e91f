"""`selftaught baseline`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from selftaught.cli.errors import integers
from selftaught.cli.options import SWITCH, Count, Device, LabelFile
from selftaught.cli.output import print_result
from selftaught.errors import readable


def baseline(
    name: Annotated[str, Parameter(help="random, kmeans, pca, scattering, pixels or timm:NAME.")],
    /,
    *source: Annotated[str, Parameter(help="Images: a folder, photos, parquet, or a data set by name.")],
    encoder: Annotated[str | None, Parameter(help="Encoder of random, kmeans and pca; default: convnet.")] = None,
    out: Annotated[Path | None, Parameter(help="Run folder, new or empty; default: a new one under runs/.")] = None,
    input_mode: Annotated[str, Parameter(help="Input preprocessing: color, lightness, grayscale, sobel.")] = "color",
    size: Annotated[
        int | None,
        Parameter(converter=integers, help="Side of the views in pixels; default: that of the images, at most 128."),
    ] = None,
    seed: Annotated[Count, Parameter(help="Random seed.")] = 0,
    limit: Annotated[int | None, Parameter(converter=integers, help="Number of images to use.")] = None,
    labels: LabelFile = None,
    pretrained: Annotated[
        bool, SWITCH, Parameter(help="Allow the published weights of timm:NAME to be downloaded.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Write the run folder of an encoder that was not pretrained, to probe, compare and report it like any run.

    A supervised baseline is trained: selftaught pretrain --task supervised.
    """
    from selftaught.api.baseline import baseline as write

    run = write(
        name,
        list(source),
        encoder=encoder,
        out=out,
        input_mode=input_mode,
        size=size,
        seed=seed,
        limit=limit,
        labels=labels,
        pretrained=pretrained,
        device=device,
    )
    print_result(readable(str(run.path)))
