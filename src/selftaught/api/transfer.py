"""Detection and segmentation with pretrained encoders, compared with random weights: resumable trainings and the table.

Each training is in `transfer/` of the run whose encoder it trains, those of random weights in that of the first run;
see `repetitions.py`.
"""

import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from selftaught.api.best import Stopped
from selftaught.api.repetitions import Recorded, Repetitions
from selftaught.contracts import Encoder, evenly_spaced
from selftaught.data.annotated import Parts
from selftaught.data.annotated.source import AnnotatedSource
from selftaught.display.console import stderr_console
from selftaught.errors import readable
from selftaught.evaluation.baselines.encoders import calibrate
from selftaught.evaluation.intervals import SAMPLES, sample_counts
from selftaught.evaluation.overlap import copies_warning, count_overlap
from selftaught.evaluation.results import file_stem
from selftaught.evaluation.transfer.contract import Transfer
from selftaught.evaluation.transfer.settings import EPOCHS, MIN_STEPS, VALIDATED, TransferSettings
from selftaught.evaluation.transfer.table import Repetition, Row, TransferTable
from selftaught.runs.atomic import write_bytes
from selftaught.runs.folder import RunFolder
from selftaught.runs.validated import TrainingPlan
from selftaught.training.interruption import Stop, stop_on_signals
from selftaught.training.loop import Pretraining
from selftaught.training.optimizer import Optimization
from selftaught.training.plan import Budget
from selftaught.training.randomness import seeded_rng

RANDOM = "random weights"
DRAWN, SHOWN_SIDE = 3, 240
"""Encoders, and approximate side of an image in pixels, in the picture of the predictions."""
CALIBRATED = 32
"""Images on which batch-norm statistics are recomputed: at these sizes each has thousands of positions."""


@dataclass(frozen=True)
class Backbone:
    """An encoder to transfer."""

    name: str
    folder: RunFolder
    """The run in which its trainings are."""
    weights: str
    """Identifies its weights, or, for random weights, its architecture."""
    encoder: Callable[[int], Encoder]
    """Seed -> the encoder, on the CPU."""


@dataclass(frozen=True)
class Comparison:
    """What the trainings of all encoders have in common."""

    transfer: Transfer[Any]
    parts: Parts[Any]
    settings: TransferSettings
    data: str
    """The data set as the user gave it."""
    size: int
    """Side of the canvases in pixels."""
    device: torch.device
    note: str = ""
    """What must be known about the encoders, for the caption of the table."""

    @property
    def facts(self) -> dict[str, object]:
        """Everything but weights and seeds that the result of a training depends on."""
        parts = (self.parts.train, self.parts.validation, self.parts.test)
        return {
            "transfer": repr(self.transfer),
            "images": [part.fingerprint for part in parts],
            "size": self.size,
            **{name: value for name, value in asdict(self.settings).items() if name not in ("seeds", "random_weights")},
        }

    def stem(self, **more: object) -> str:
        """The name of a result of this comparison, which also depends on `more`."""
        return file_stem(self.data, self.transfer.name, {**self.facts, **more})

    def training(self, backbone: Backbone, seed: int, rate: float) -> Pretraining:
        """A training of one step, with a copy of the encoder and heads with random weights.

        Raises:
            UserError: the encoder does not suit the transfer.
        """
        train, settings = self.parts.train, self.settings
        encoder, task = deepcopy(backbone.encoder(seed)).cpu(), self.transfer.task(self.size, settings.freeze_until)
        with seeded_rng(seed, "heads"):
            heads = task.heads(encoder, train)
        batch_size = min(settings.batch_size, len(train))
        return Pretraining(task, encoder, heads, train, Optimization(learning_rate=rate), 1, batch_size, seed)

    def first_training(self, backbone: Backbone) -> Pretraining:
        """That of seed 0 with the first learning rate."""
        return self.training(backbone, 0, self.settings.learning_rates[0])

    def budget(self, run: Pretraining) -> Budget:
        """The length of each training."""
        return self.settings.budget or Budget(steps=max(MIN_STEPS, EPOCHS * run.steps_per_pass))

    def table(self, rows: Sequence[Row], steps: int, pretraining_ids: torch.Tensor | None) -> TransferTable:
        """The results of all encoders."""
        parts, tested = self.parts, torch.arange(len(self.parts.test))
        copies = copies_warning(parts.train, torch.arange(len(parts.train)), parts.test, tested)
        return TransferTable(
            transfer=self.transfer.name,
            metrics=self.transfer.metrics,
            data=self.data,
            train=len(parts.train),
            validation=min(len(parts.validation), VALIDATED),
            test=len(parts.test),
            classes=parts.train.classes,
            size=self.size,
            steps=steps,
            settings={**vars(self.settings), **vars(self.transfer)},
            rows=tuple(rows),
            by_class={row.name: _mean_by_class(self.transfer, row, parts.test) for row in rows},
            notes=tuple(filter(None, [parts.note, copies, self.note])),
            overlap=count_overlap(parts.test, tested, pretraining_ids),
        )


@dataclass(frozen=True)
class Trainings:
    """The trainings of one encoder."""

    shared: Comparison
    backbone: Backbone
    plan: TrainingPlan
    root: Path
    """Their folder."""
    repetitions: Repetitions

    def repetition(self, seed: int) -> Repetition:
        """Train with one seed and test, or read the recorded result.

        Raises:
            Stopped: a signal stopped it.
        """
        folder = self.root / f"seed-{seed}"
        found = self.repetitions.result(folder, lambda: self._train(folder, seed), self._check)
        arrays = dict(found.arrays)
        return Repetition(**found.facts, resampled=arrays.pop("resampled"), predictions=arrays)

    def _check(self, found: Recorded) -> bool:
        """Whether a result has the metrics of this transfer, and the first one on every bootstrap sample."""
        resampled = found.arrays["resampled"]
        named = set(found.facts.get("metrics") or ()) == set(self.shared.transfer.metrics)
        return named and resampled.dtype == np.float64 and resampled.shape == (SAMPLES,)

    def _train(self, folder: Path, seed: int) -> None:
        """Train, test the chosen weights, keep them and record the result."""
        shared, transfer, test = self.shared, self.shared.transfer, self.shared.parts.test
        held, device = _validated(shared.parts.validation), self.repetitions.device

        def make(rate: float) -> Pretraining:
            run = shared.training(self.backbone, seed, rate)
            calibrate(run.encoder, shared.parts.train, shared.size, torch.device("cpu"), CALIBRATED)
            return replace(run, steps=self.plan["steps"])

        def validate(encoder: Encoder, heads: torch.nn.ModuleDict) -> tuple[float, float]:
            first, second, *_ = transfer.score(transfer.predict(encoder, heads, held, device), held).values()
            return first, second

        best = self.repetitions.choose(folder, self.backbone.name, make, validate, self.plan["precision"])
        predictions = transfer.predict(best.encoder, best.heads, test, device)
        resampled = transfer.resampled(predictions, test, sample_counts(len(test)))
        self.repetitions.keep_model(folder, best)
        facts = {"metrics": transfer.score(predictions, test), **best.facts()}
        self.repetitions.record(folder, Recorded(facts, {"resampled": resampled, **predictions}))


def transfer_encoders(
    backbones: Sequence[Backbone], shared: Comparison, stamp: Mapping[str, object], stop: Stop | None = None
) -> TransferTable | None:
    """Train every encoder with every seed, and write the table to the run of the first one.

    Args:
        backbones: the encoders; random weights are the last one.
        shared: the transfer, the images and how to train.
        stamp: identifies the weights of the first encoder.
        stop: request a stop from another thread; in the main thread signals request it, too.

    Returns:
        The table; None if a signal stopped a training, which the same call continues.

    Raises:
        UserError: an encoder does not suit the transfer.
    """
    first, console = backbones[0].folder, stderr_console(highlight=False, markup=False, soft_wrap=True)
    results = first.prepare_results(first.transfers)
    for backbone in backbones:  # before the first training
        shared.first_training(backbone)
    if shared.parts.note:
        console.print(f"{readable(shared.data)}: {shared.parts.note}")
    try:
        rows, steps = _trained(backbones, shared, stop or Stop(), console)
    except Stopped:
        return None
    table = shared.table(rows, steps, first.read_image_ids())
    names = [backbone.weights for backbone in backbones]
    path = results / f"{shared.stem(rows=names, seeds=shared.settings.seeds)}.json"
    write_bytes(path.with_suffix(".npz"), table.npz(), first.path)
    write_bytes(path.with_suffix(".png"), _picture(shared.transfer, rows, shared.parts.test), first.path)
    first.write_result(path, {**table.to_json(), "predictions": path.with_suffix(".npz").name, **stamp})
    return table


def _trained(backbones: Sequence[Backbone], shared: Comparison, stop: Stop, console: Console) -> tuple[list[Row], int]:
    """Every encoder with every seed, and the steps of each training, which are planned for the first encoder.

    Raises:
        Stopped: a signal stopped a training.
    """
    plan, rows, settings = None, [], shared.settings
    metric = next(iter(shared.transfer.metrics.values()))
    for backbone in backbones:
        folder = backbone.folder
        root = folder.transfers / shared.stem(weights=backbone.weights)
        with folder.locked(), stop_on_signals(stop):
            repetitions = Repetitions(
                folder.path, settings.learning_rates, settings.evaluations, metric, shared.device, stop, console
            )
            try:
                plan = plan or repetitions.plan(root, partial(shared.first_training, backbone), shared.budget)
                trainings = Trainings(shared, backbone, plan, root, repetitions)
                rows.append(Row(backbone.name, tuple(trainings.repetition(seed) for seed in range(settings.seeds))))
            except Stopped:
                console.print(f"interrupted; the same command continues: {readable(str(root))}")
                raise
    assert plan is not None
    return rows, plan["steps"]


def _validated(source: AnnotatedSource) -> AnnotatedSource:
    """The validation images, evenly spaced if there are more than `VALIDATED`."""
    return source if len(source) <= VALIDATED else source.part(evenly_spaced(VALIDATED, len(source)).tolist())


def _mean_by_class(transfer: Transfer[Any], row: Row, test: AnnotatedSource) -> tuple[float | None, ...]:
    """The first metric of every class, mean over the seeds of an encoder."""
    columns = zip(*(transfer.by_class(dict(each.predictions), test) for each in row.repetitions), strict=True)
    return tuple(None if None in column else statistics.fmean(column) for column in columns)


def _picture(transfer: Transfer[Any], rows: Sequence[Row], test: AnnotatedSource) -> bytes:
    """Two test images as a PNG: annotated, and with what the first seed of the first encoders predicts."""
    from selftaught.figures import image_table, stretched  # here, because importing matplotlib takes a second

    shown = [row for row in rows if len(rows) <= DRAWN or row in (*rows[: DRAWN - 1], rows[-1])]
    columns = {row.name: transfer.examples(dict(row.repetitions[0].predictions), test) for row in shown}
    images = {"annotated": transfer.annotated(test), **{name: own for name, own in columns.items() if own is not None}}
    table = stretched(torch.stack(list(images.values()), 1), SHOWN_SIDE)
    buffer = io.BytesIO()
    image_table(table, list(images), []).savefig(buffer, format="png")
    return buffer.getvalue()
