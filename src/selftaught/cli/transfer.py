"""`selftaught detection` and `selftaught segmentation`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from selftaught.cli.errors import integers
from selftaught.cli.options import Count, Device, Json, LearningRates
from selftaught.cli.output import print_result

Runs = Annotated[Path, Parameter(help="Run folders; the table is written to the first one.")]


@dataclass(frozen=True)
class Options:
    """Options of both commands."""

    freeze_until: Annotated[
        str | None,
        Parameter(help="Last layer to freeze, with all before it; the encoder's last layer freezes the whole encoder."),
    ] = None
    random_weights: Annotated[
        bool, Parameter(help="Train the same encoder from random weights as well, with the same images and budget.")
    ] = True
    learning_rates: LearningRates = (3e-4, 1e-3)
    seeds: Annotated[Count, Parameter(help="Number of trainings of each encoder; reported as mean ± std.")] = 3
    epochs: Annotated[
        float | None, Parameter(help="Passes over the training images; default: 12, and at least 300 steps.")
    ] = None
    steps: Annotated[int | None, Parameter(converter=integers, help="Optimizer steps of each training.")] = None
    minutes: Annotated[float | None, Parameter(help="Minutes of each training.")] = None
    batch_size: Annotated[Count, Parameter(help="Number of images per step.")] = 4
    evaluations: Annotated[
        Count,
        Parameter(help="Number of evaluations of each training on validation images; the best weights are kept."),
    ] = 3
    size: Annotated[Count, Parameter(help="Longer side of the images in pixels; the aspect ratio is kept.")] = 320
    device: Device = "auto"
    json_: Json = False


Shared = Annotated[Options, Parameter(name="*")]
DEFAULTS = Options()


def detection(
    *runs: Runs,
    data: Annotated[str, Parameter(help="Images with boxes: a folder in the layout of VOC or COCO.")],
    detector: Annotated[
        str,
        Parameter(help="c4: boxes from the last layer; fpn: from a feature pyramid over layers of different strides."),
    ] = "c4",
    head_width: Annotated[Count, Parameter(help="Width of the box head; the pyramid has a quarter of it.")] = 256,
    options: Shared = DEFAULTS,
) -> int:
    """Train encoders as backbones of Faster R-CNN, compared with random weights: average precision on test images.

    After Ctrl-C the same command continues; what is finished is not repeated.
    """
    return _transfer("detection", runs, data, options, detector=detector, head_width=head_width)


def segmentation(
    *runs: Runs,
    data: Annotated[
        str, Parameter(help="Images with masks: a folder in VOC's layout, or with images and masks folders.")
    ],
    options: Shared = DEFAULTS,
) -> int:
    """Train encoders with a fully convolutional head, compared with random weights: mean IoU on test images.

    After Ctrl-C the same command continues; what is finished is not repeated.
    """
    return _transfer("segmentation", runs, data, options)


def _transfer(name: str, runs: tuple[Path, ...], data: str, options: Options, **own: Any) -> int:
    from selftaught.api.run import Run
    from selftaught.errors import UserError
    from selftaught.evaluation.transfer.table import render
    from selftaught.training.interruption import Stop

    if not runs:
        raise UserError(f"{name} expects at least one run folder, got none.")
    settings = {key: value for key, value in vars(options).items() if key != "json_"}
    stop = Stop()
    first, *others = map(Run, runs)
    table = getattr(first, name)(data, *others, stop=stop, **own, **settings)
    if table is None:
        return stop.exit_code
    print_result(table.to_json() if options.json_ else render(table))
    return 0
