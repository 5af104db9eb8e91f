"""`selftaught attention`."""

from typing import Annotated

from cyclopts import Parameter

from selftaught.cli.options import Count, Device, Json, Layers, RunPath, Size, as_words
from selftaught.cli.output import print_picture


def attention(
    run: RunPath,
    /,
    *,
    data: Annotated[str, Parameter(help="Images, their test part where there is one; or a photo.")],
    layers: Layers = (),
    powers: Annotated[
        tuple[float, ...],
        Parameter(
            help="Powers of the activations, one row each. Larger ones show peaks.",
            consume_multiple=True,
            show_default=as_words,
        ),
    ] = (1, 2, 4),
    images: Annotated[Count, Parameter(help="Number of images.")] = 6,
    size: Size = None,
    device: Device = "auto",
    json_: Json = False,
) -> None:
    """Draw attention maps of every layer over images, beside those of random weights.

    The sum over channels of the powers of activations; for `vit`, the attention of its last block.
    """
    from selftaught.api.run import Run

    picture = Run(run).attention(data, layers=layers, powers=powers, images=images, size=size, device=device)
    print_picture(picture, json_)
