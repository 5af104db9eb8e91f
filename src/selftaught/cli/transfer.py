"""`selftaught detection` and `selftaught segmentation`."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from selftaught.cli.errors import integers
from selftaught.cli.options import Count, Device, Json
from selftaught.cli.output import print_result

RunPath = Annotated[Path, Parameter(help="Run folders; the table is written to the first one.")]
FreezeUntil = Annotated[
    str | None,
    Parameter(help="Layer that is not trained, nor are those before it; the last layer trains the heads only."),
]
RandomWeights = Annotated[
    bool, Parameter(help="Train the same encoder from random weights as well, with the same images and budget.")
]
LearningRates = Annotated[
    tuple[float, ...], Parameter(help="Peak learning rates to choose from on validation images.", consume_multiple=True)
]
Seeds = Annotated[Count, Parameter(help="Number of trainings of each encoder; reported as mean ± std.")]
Epochs = Annotated[
    float | None, Parameter(help="Passes over the training images; default: 12, and at least 300 steps.")
]
Steps = Annotated[int | None, Parameter(converter=integers, help="Optimizer steps of each training.")]
Minutes = Annotated[float | None, Parameter(help="Minutes of each training.")]
BatchSize = Annotated[Count, Parameter(help="Number of images per step.")]
Evaluations = Annotated[
    Count, Parameter(help="How often each training is evaluated on validation images; the best weights are kept.")
]
Side = Annotated[Count, Parameter(help="Longer side of the images in pixels; the aspect ratio is kept.")]


def detection(
    *runs: RunPath,
    data: Annotated[str, Parameter(help="Images with boxes: a folder in the layout of VOC or COCO.")],
    detector: Annotated[
        str,
        Parameter(help="c4: boxes from the last layer; fpn: from a feature pyramid over layers of different strides."),
    ] = "c4",
    head_width: Annotated[Count, Parameter(help="Width of the box head; the pyramid has a quarter of it.")] = 256,
    freeze_until: FreezeUntil = None,
    random_weights: RandomWeights = True,
    learning_rates: LearningRates = (3e-4, 1e-3),
    seeds: Seeds = 3,
    epochs: Epochs = None,
    steps: Steps = None,
    minutes: Minutes = None,
    batch_size: BatchSize = 4,
    evaluations: Evaluations = 3,
    size: Side = 320,
    device: Device = "auto",
    json_: Json = False,
) -> int:
    """Train encoders as backbones of Faster R-CNN, compared with random weights: average precision on test images.

    After Ctrl-C the same command continues; what is finished is not repeated.
    """
    return _transfer(
        "detection",
        runs,
        data,
        json_,
        detector=detector,
        head_width=head_width,
        freeze_until=freeze_until,
        random_weights=random_weights,
        learning_rates=learning_rates,
        seeds=seeds,
        epochs=epochs,
        steps=steps,
        minutes=minutes,
        batch_size=batch_size,
        evaluations=evaluations,
        size=size,
        device=device,
    )


def segmentation(
    *runs: RunPath,
    data: Annotated[
        str, Parameter(help="Images with masks: a folder in VOC's layout, or with images and masks folders.")
    ],
    freeze_until: FreezeUntil = None,
    random_weights: RandomWeights = True,
    learning_rates: LearningRates = (3e-4, 1e-3),
    seeds: Seeds = 3,
    epochs: Epochs = None,
    steps: Steps = None,
    minutes: Minutes = None,
    batch_size: BatchSize = 4,
    evaluations: Evaluations = 3,
    size: Side = 320,
    device: Device = "auto",
    json_: Json = False,
) -> int:
    """Train encoders with a fully convolutional head, compared with random weights: mean IoU on test images.

    After Ctrl-C the same command continues; what is finished is not repeated.
    """
    return _transfer(
        "segmentation",
        runs,
        data,
        json_,
        freeze_until=freeze_until,
        random_weights=random_weights,
        learning_rates=learning_rates,
        seeds=seeds,
        epochs=epochs,
        steps=steps,
        minutes=minutes,
        batch_size=batch_size,
        evaluations=evaluations,
        size=size,
        device=device,
    )


def _transfer(name: str, runs: tuple[Path, ...], data: str, as_json: bool, **settings: Any) -> int:
    from selftaught.api.run import Run
    from selftaught.errors import UserError
    from selftaught.evaluation.transfer.table import render
    from selftaught.training.interruption import Stop

    if not runs:
        raise UserError(f"{name} expects at least one run folder, got none.")
    stop = Stop()
    first, *others = map(Run, runs)
    table = getattr(first, name)(data, *others, stop=stop, **settings)
    if table is None:
        return stop.exit_code
    print_result(table.to_json() if as_json else render(table))
    return 0
