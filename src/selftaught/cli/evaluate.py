"""`selftaught evaluate`."""

from typing import Annotated

from cyclopts import Parameter

from selftaught.cli.errors import integers
from selftaught.cli.options import (
    SEVERAL,
    SWITCH,
    Count,
    Device,
    Json,
    LabeledData,
    LabelFile,
    LearningRates,
    Limit,
    RunPath,
    Size,
    Stored,
)
from selftaught.cli.output import print_result

Counts = Annotated[tuple[int, ...], SEVERAL, Parameter(converter=integers)]


def evaluate(
    run: RunPath,
    /,
    *,
    data: LabeledData,
    finetune: Annotated[
        bool, SWITCH, Parameter(help="Fine-tune the encoder instead of probing its best frozen layer.")
    ] = False,
    probe: Annotated[
        str, Parameter(help="Probe on the frozen features: ridge, logistic, sgd, knn, svm, mlp, conv.")
    ] = "ridge",
    from_scratch: Annotated[
        bool, Parameter(help="Train the same encoder from random weights as well, with the same images and budget.")
    ] = True,
    freeze_until: Annotated[
        str | None, Parameter(help="Last layer to freeze in fine-tuning, with all before it.")
    ] = None,
    layer_decay: Annotated[
        float, Parameter(help="Ratio of the learning rates of neighboring layers in fine-tuning; 1 for one rate.")
    ] = 0.75,
    learning_rates: LearningRates = (3e-4, 1e-3, 3e-3),
    labels_per_class: Annotated[Counts, Parameter(help="Numbers of labeled images per class; default: all.")] = (),
    label_fraction: Annotated[
        tuple[str, ...], SEVERAL, Parameter(help="Fractions of the labeled images, such as 1% 10%.")
    ] = (),
    seeds: Annotated[Count, Parameter(help="Number of trainings with all labels; reported as mean ± std.")] = 3,
    draws: Annotated[Count, Parameter(help="Number of random choices of few labels; reported as mean ± std.")] = 5,
    epochs: Annotated[
        float | None, Parameter(help="Passes over the training images; default: 10, and at least 300 steps.")
    ] = None,
    steps: Annotated[int | None, Parameter(converter=integers, help="Optimizer steps of each training.")] = None,
    minutes: Annotated[float | None, Parameter(help="Minutes of each training.")] = None,
    batch_size: Annotated[Count, Parameter(help="Number of images per step.")] = 64,
    size: Size = None,
    limit: Limit = None,
    labels: LabelFile = None,
    storage: Stored = "auto",
    device: Device = "auto",
    json_: Json = False,
) -> int:
    """Fine-tune the encoder of a run, or probe it with few labels, compared with training from scratch.

    After Ctrl-C the same command continues; what is finished is not repeated.
    """
    from selftaught.api.run import Run
    from selftaught.evaluation.few_labels import parse_fraction
    from selftaught.evaluation.finetune_table import render
    from selftaught.training.interruption import Stop

    stop = Stop()
    table = Run(run).finetune(
        data, frozen=not finetune, probe=probe, from_scratch=from_scratch, freeze_until=freeze_until,
        layer_decay=layer_decay, learning_rates=learning_rates, labels_per_class=labels_per_class,
        label_fraction=tuple(map(parse_fraction, label_fraction)), seeds=seeds, draws=draws, epochs=epochs,
        steps=steps, minutes=minutes, batch_size=batch_size, size=size, limit=limit, labels=labels, storage=storage,
        device=device, stop=stop,
    )  # fmt: skip
    if table is None:
        return stop.exit_code
    print_result(table.to_json() if json_ else render(table))
    return 0
