"""`selftaught stylize`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from selftaught.cli.options import SEVERAL, SWITCH, Count, Device, Json
from selftaught.cli.output import print_picture

Names = Annotated[tuple[str, ...], SEVERAL]


def stylize(
    run: Annotated[Path, Parameter(help="A run folder with a convolutional encoder.")],
    /,
    *,
    content: Annotated[str, Parameter(help="Photo: an image file, or the name of a bundled photo.")],
    style: Annotated[str, Parameter(help="Photo or painting whose style is transferred.")],
    content_layers: Annotated[Names, Parameter(help="Layers of the content; default: one at 3/4 of the depth.")] = (),
    style_layers: Annotated[Names, Parameter(help="Layers of the style; default: all, at most five.")] = (),
    style_weight: Annotated[float, Parameter(help="Weight of the style loss; that of the content loss is 1.")] = 10.0,
    tv_weight: Annotated[
        float, Parameter(help="Weight of the total variation; larger ones give smoother images.")
    ] = 30.0,
    steps: Annotated[Count, Parameter(help="Iterations of L-BFGS-B.")] = 200,
    size: Annotated[Count, Parameter(help="Longer side of the photos and of the result, in pixels.")] = 256,
    init: Annotated[Literal["content", "noise"], Parameter(help="Image to start from.")] = "content",
    seed: Annotated[Count, Parameter(help="Random seed of the noise.")] = 0,
    random: Annotated[bool, SWITCH, Parameter(help="Add the result of random weights of the same encoder.")] = False,
    out: Annotated[Path | None, Parameter(help="New PNG file for the result alone.")] = None,
    device: Device = "auto",
    json_: Json = False,
) -> int:
    """Transfer the style of one photo to another by the features of a run (Gatys et al. 2016).

    Ctrl-C stops after the current step and writes the image so far.
    """
    from selftaught.api.run import Run
    from selftaught.training.interruption import Stop

    stop = Stop()
    picture = Run(run).stylize(
        content, style, content_layers=content_layers, style_layers=style_layers, style_weight=style_weight,
        tv_weight=tv_weight, steps=steps, size=size, init=init, seed=seed, random=random, out=out, device=device,
        stop=stop,
    )  # fmt: skip
    print_picture(picture, json_)
    return stop.exit_code
