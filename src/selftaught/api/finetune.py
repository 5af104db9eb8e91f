"""Fine-tuning, or a probe on frozen features, by number of labels, compared with training from scratch."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from time import monotonic

import torch

from selftaught.api.best import Stopped
from selftaught.api.repetitions import Repetitions
from selftaught.api.trainings import EVALUATIONS, PROBES, Trainings, training_settings
from selftaught.contracts import Encoder, Source
from selftaught.display.console import stderr_console
from selftaught.display.progress import time_left
from selftaught.errors import readable
from selftaught.evaluation.baselines.encoders import calibrate
from selftaught.evaluation.features import require_one_label, require_same_classes
from selftaught.evaluation.few_labels import LabelCount, draw_labels, label_counts, labels_of, shared_labels_note
from selftaught.evaluation.finetune_table import FineTuneTable, LabelResult, Row
from selftaught.evaluation.finetuning import DEFAULT_PROBE, FineTuning
from selftaught.evaluation.overlap import content_ids_of, count_overlap, duplicate_warning
from selftaught.evaluation.results import file_stem
from selftaught.evaluation.table import RECALIBRATED, data_name
from selftaught.modules.depth import require_layer
from selftaught.modules.processes import alone, processes
from selftaught.runs.atomic import write_bytes
from selftaught.runs.folder import RunFolder
from selftaught.training.distributed import all_arrived, from_first
from selftaught.training.interruption import Stop, stop_on_signals


def finetune(
    folder: RunFolder,
    encoder: Encoder,
    fresh: Callable[[int], Encoder],
    train: Source,
    test: Source,
    settings: FineTuning,
    *,
    size: int,
    device: torch.device,
    stamp: Mapping[str, object],
    recalibrate: bool = False,
    stop: Stop | None = None,
) -> FineTuneTable | None:
    """Fine-tune the encoder of a run, or probe it, with every number of labels, and write the result to the run.

    Args:
        folder: the run.
        encoder: its encoder.
        fresh: seed -> the same encoder with random weights.
        train: labeled training images; some are held out to choose the learning rate and the step.
        test: labeled test images of the same classes.
        settings: what to train.
        size: side of the views in pixels.
        device: where to compute.
        stamp: identifies the weights of the encoder.
        recalibrate: recompute its batch-norm statistics on whole images first.
        stop: request a stop from another thread; in the main thread signals request it, too.

    Returns:
        The table; None if a signal stopped a training, which the same call continues.

    Raises:
        UserError: labels are missing or too few.
    """
    require_one_label(train, "fine-tuning or a probe with few labels")
    classes, stop = require_same_classes(train, test), stop or Stop()
    if not encoder.has_parameters:
        settings = replace(settings, from_scratch=False)
    if settings.freeze_until is not None:
        require_layer(encoder, settings.freeze_until)
    labels = labels_of(train)
    counts = label_counts(labels, classes, settings.labels_per_class, settings.label_fraction)
    recalibrated = recalibrate and calibrate(encoder.to(device), train, size, device)
    if recalibrated:
        processes().copy_first(encoder.state_dict().values())
    console = stderr_console(highlight=False, markup=False, soft_wrap=True)
    results = processes().first(lambda: folder.prepare_results(folder.finetunes))
    setting = {**training_settings(settings), "images": [train.fingerprint, test.fingerprint], "size": size, **stamp}
    root = results / file_stem(data_name(train.name), "", setting)
    repetitions = Repetitions(
        folder.path, settings.learning_rates, EVALUATIONS, "accuracy", device, stop, console
    )  # fmt: skip
    trainings = Trainings(root, repetitions, encoder, fresh, train, test, labels, size, settings)
    with folder.locked() if processes().rank == 0 else nullcontext(), stop_on_signals(stop):
        try:
            _train(trainings, counts)
            label_results = from_first(lambda: _results(trainings, counts))
        except Stopped:
            console.print(f"interrupted; the same command continues: {readable(str(root))}")
            return None
    notes = [
        shared_labels_note(labels, counts),
        RECALIBRATED if recalibrated else "",
        ""
        if encoder.has_parameters
        else "The encoder has no parameters: it has no random weights and is not trained from scratch.",
        duplicate_warning(train, test),
    ]
    table = _table(trainings, label_results, "\n".join(filter(None, notes)), folder)
    if processes().rank:
        return table
    details = "-".join(["probe" if settings.frozen else "finetune", *(count.name.split()[0] for count in counts)])
    key = {name: value for name, value in vars(settings).items() if (name, value) != ("probe", DEFAULT_PROBE)}
    path = results / f"{file_stem(table.data, details[:60], {**setting, **key})}.json"
    write_bytes(path.with_suffix(".npz"), table.npz(), folder.path)
    folder.write_result(path, {**table.to_json(), "correctness": path.with_suffix(".npz").name, **stamp})
    return table


def _train(trainings: Trainings, counts: Sequence[LabelCount]) -> None:
    """Do all trainings that are not recorded, and report the remaining time after each.

    They are independent of each other, so each of several processes does a part of them, as one process alone does.
    Their results are then in the run folder.

    Raises:
        Stopped: one was stopped.
    """
    settings, those = trainings.settings, processes()
    parts = [
        (name, count, number)
        for count in counts
        for name in trainings.ways
        if name != PROBES[1]  # done with the first of the two
        for number in range(settings.repetitions(count.per_class is None))
    ]
    places = those.first(lambda: [place for place, part in enumerate(parts) if not trainings.is_finished(*part)])
    left = [parts[place] for place in places[those.rank :: those.count]]
    start, stopped = monotonic(), False
    with alone():
        if those.count > 1 and those.rank == 0:
            for count in counts:
                trainings.prepare(count)
    those.first(lambda: None)  # the plans are written
    with alone():
        try:
            for done, part in enumerate(left, 1):
                trainings.repetition(*part)
                if remaining := time_left(monotonic() - start, done, len(left)):
                    trainings.repetitions.console.print(f"{done:,} of {len(left):,} results, about {remaining}")
        except Stopped:
            stopped = True
    if all_arrived(stopped):
        raise Stopped


def _results(trainings: Trainings, counts: Sequence[LabelCount]) -> tuple[LabelResult, ...]:
    with alone():
        return tuple(_result(trainings, count) for count in counts)


def _result(trainings: Trainings, count: LabelCount) -> LabelResult:
    """All rows and repetitions with one number of labels."""
    settings = trainings.settings
    numbers = range(settings.repetitions(count.per_class is None))
    rows = {name: tuple(trainings.repetition(name, count, number) for number in numbers) for name in trainings.ways}
    chosen = draw_labels(trainings.labels, count, 0)
    validation = len(trainings.split(chosen, 0)[1])
    return LabelResult(
        name=count.name,
        images=len(chosen),
        validation=validation,
        steps=trainings.steps(count),
        rows=tuple(Row(name, repetitions) for name, repetitions in rows.items()),
    )


def _table(trainings: Trainings, results: tuple[LabelResult, ...], note: str, folder: RunFolder) -> FineTuneTable:
    test, settings = trainings.test, trainings.settings
    labels = labels_of(test)
    chosen = (labels >= 0).nonzero().flatten()
    return FineTuneTable(
        data=data_name(trainings.train.name),
        chance=int(labels[chosen].bincount().max()) / len(chosen),
        test=len(chosen),
        repeated="seeds" if results[0].name == "all" else "draws",
        size=trainings.size,
        settings=vars(settings),
        results=results,
        note=note,
        overlap=count_overlap(test, chosen, folder.read_image_ids()),
        labels=labels[chosen],
        test_ids=content_ids_of(test, chosen),
    )
