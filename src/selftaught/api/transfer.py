"""Detection and segmentation with pretrained encoders, compared with random weights: resumable trainings and the table.

Each training is in `transfer/` of the run whose encoder it trains, those of random weights in that of the first run.
What is finished is recorded there, so the same command continues after an interruption.
"""

import io
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from selftaught.api.best import Stopped, best_weights, train_best
from selftaught.contracts import Encoder, evenly_spaced
from selftaught.data.annotated import Parts
from selftaught.data.annotated.source import AnnotatedSource
from selftaught.display.console import stderr_console
from selftaught.errors import DivergedError, UserError, readable
from selftaught.evaluation.baselines.encoders import calibrate
from selftaught.evaluation.overlap import count_overlap
from selftaught.evaluation.results import file_stem
from selftaught.evaluation.transfer.contract import Transfer
from selftaught.evaluation.transfer.settings import EPOCHS, MIN_STEPS, VALIDATED, TransferSettings
from selftaught.evaluation.transfer.table import SAMPLES, Repetition, Row, TransferTable, sample_counts
from selftaught.runs.atomic import write_bytes, write_text
from selftaught.runs.files import exists, make_folder, read_limited, remove_tree
from selftaught.runs.folder import RunFolder
from selftaught.runs.models import mismatch
from selftaught.runs.parse import parse_arrays, parse_json
from selftaught.runs.result_models import Training
from selftaught.runs.validated import TrainingPlan, read_typed
from selftaught.runs.weights import weights_bytes
from selftaught.training.interruption import Stop, stop_on_signals
from selftaught.training.loop import Pretraining
from selftaught.training.optimizer import Optimization
from selftaught.training.plan import Budget, choose_precision, make_plan
from selftaught.training.randomness import seeded_rng

RANDOM = "random weights"
RESULT, PLAN, MAX_BYTES = "result.npz", "plan.json", 2**30
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
class _Trainings:
    """Everything that the trainings of one encoder share."""

    backbone: Backbone
    transfer: Transfer[Any]
    parts: Parts[Any]
    settings: TransferSettings
    size: int
    device: torch.device
    plan: tuple[int, str]
    """Steps and precision."""
    root: Path
    stop: Stop
    console: Console

    def repetition(self, seed: int) -> Repetition:
        """Train with one seed and test, or read the recorded result.

        Raises:
            Stopped: a signal stopped it.
        """
        folder = self.root / f"seed-{seed}"
        path = folder / RESULT
        if not exists(path):
            if self.stop.requested:
                raise Stopped
            make_folder(folder, self.backbone.folder.path)
            write_bytes(path, self._trained(folder, seed), self.backbone.folder.path)
        for left in (*folder.glob("rate-*/checkpoint/*"), *folder.glob("rate-*/best/*")):
            remove_tree(left, self.backbone.folder.path)
        return self._unpacked(path)

    def _trained(self, folder: Path, seed: int) -> bytes:
        """Train with each learning rate, and test the weights that are best on the validation images."""
        outcomes = [(*self._train(folder, seed, rate), rate) for rate in self.settings.learning_rates]
        score, _, step, rate = max(outcomes)
        if step == 0:
            raise DivergedError(
                f"the loss became NaN or infinite with every learning rate of {self.backbone.name}: try lower ones."
            )
        run = self._pretraining(seed, rate)
        best = best_weights(folder / f"rate-{rate:g}", run).load()
        if best is None:
            raise UserError(f"the weights in {readable(str(folder))} are missing: remove the folder and repeat.")
        run.encoder.load_state_dict(best["encoder"]), run.heads.load_state_dict(best["heads"])
        run.encoder.to(self.device), run.heads.to(self.device)
        test = self.parts.test
        predictions = self.transfer.predict(run.encoder, run.heads, test, self.device)
        tensors = {f"{part}.{key}": value for part in ("encoder", "heads") for key, value in best[part].items()}
        write_bytes(folder / "model.safetensors", weights_bytes(tensors), self.backbone.folder.path)
        facts = {
            "metrics": self.transfer.score(predictions, test), "held_out": score, "learning_rate": rate, "step": step,
        }  # fmt: skip
        file = io.BytesIO()
        resampled = self.transfer.resampled(predictions, test, sample_counts(len(test)))
        np.savez_compressed(file, facts=np.array(json.dumps(facts)), resampled=resampled, **predictions)  # type: ignore[arg-type]
        return file.getvalue()

    def _train(self, folder: Path, seed: int, rate: float) -> tuple[float, float, int]:
        run, held = self._pretraining(seed, rate), _validated(self.parts.validation)

        def validate(encoder: Encoder, heads: torch.nn.ModuleDict) -> tuple[float, float]:
            predictions = self.transfer.predict(encoder, heads, held, self.device)
            first, second, *_ = self.transfer.score(predictions, held).values()
            return first, second

        return train_best(
            run,
            folder / f"rate-{rate:g}",
            self.backbone.folder.path,
            validate=validate,
            evaluations=self.settings.evaluations,
            device=self.device,
            precision=self.plan[1],
            name=next(iter(self.transfer.metrics.values())),
            console=self.console,
            stop=self.stop,
        )

    def _pretraining(self, seed: int, rate: float) -> Pretraining:
        run = _one_step(self.backbone, self.transfer, self.parts.train, self.settings, self.size, seed, rate)
        calibrate(run.encoder, self.parts.train, self.size, torch.device("cpu"), CALIBRATED)
        return replace(run, steps=self.plan[0])

    def _unpacked(self, path: Path) -> Repetition:
        content = read_limited(path, self.backbone.folder.path, MAX_BYTES)
        try:
            arrays = parse_arrays(content)
            facts, resampled = parse_json(str(arrays.pop("facts")).encode()), arrays.pop("resampled")
            if mismatch(Training, facts) or set(facts.get("metrics") or ()) != set(self.transfer.metrics):
                raise ValueError("other content than that of a training")
            if resampled.dtype != np.float64 or resampled.shape != (SAMPLES,) or not np.isfinite(resampled).all():
                raise ValueError("other bootstrap samples")
            return Repetition(**facts, predictions=arrays, resampled=resampled)
        except Exception as error:  # numpy, zip and JSON raise many exception types for damaged files
            raise UserError(f"{readable(str(path))} is damaged: remove it and repeat the command.") from error


def transfer_encoders(
    backbones: Sequence[Backbone],
    transfer: Transfer[Any],
    parts: Parts[Any],
    settings: TransferSettings,
    *,
    data: str,
    size: int,
    device: torch.device,
    stamp: dict[str, object],
    stop: Stop | None = None,
) -> TransferTable | None:
    """Train every encoder with every seed, and write the table to the run of the first one.

    Args:
        backbones: the encoders; random weights are the last one.
        transfer: detection or segmentation.
        parts: annotated images.
        settings: how to train.
        data: the data set as the user gave it.
        size: side of the canvases in pixels.
        device: where to compute.
        stamp: identifies the weights of the first encoder.
        stop: request a stop from another thread; in the main thread signals request it, too.

    Returns:
        The table; None if a signal stopped a training, which the same call continues.

    Raises:
        UserError: an encoder does not suit the transfer.
    """
    stop, first = stop or Stop(), backbones[0].folder
    console = stderr_console(highlight=False, markup=False, soft_wrap=True)
    results = first.prepare_results(first.transfers)
    for backbone in backbones:  # before the first training
        _one_step(backbone, transfer, parts.train, settings, size, 0, settings.learning_rates[0])
    if parts.note:
        console.print(f"{readable(data)}: {parts.note}")
    setting = {
        "transfer": repr(transfer),
        "images": [part.fingerprint for part in (parts.train, parts.validation, parts.test)],
        "size": size,
        **{name: value for name, value in asdict(settings).items() if name not in ("seeds", "random_weights")},
    }
    plan, rows = None, []
    for backbone in backbones:
        root = backbone.folder.transfers / file_stem(data, transfer.name, {**setting, "weights": backbone.weights})
        with backbone.folder.locked(), stop_on_signals(stop):
            try:
                plan = plan or _plan(root, backbone, transfer, parts.train, settings, size, device)
                shared = _Trainings(
                    backbone, transfer, parts, settings, size, device, plan, root, stop, console
                )  # fmt: skip
                rows.append(Row(backbone.name, tuple(shared.repetition(seed) for seed in range(settings.seeds))))
            except Stopped:
                console.print(f"interrupted; the same command continues: {readable(str(root))}")
                return None
    assert plan is not None
    table = TransferTable(
        transfer=transfer.name,
        metrics=transfer.metrics,
        data=data,
        train=len(parts.train),
        validation=min(len(parts.validation), VALIDATED),
        test=len(parts.test),
        classes=parts.train.classes,
        size=size,
        steps=plan[0],
        settings={**vars(settings), **vars(transfer)},
        rows=tuple(rows),
        notes=tuple(filter(None, [parts.note])),
        overlap=count_overlap(parts.test, torch.arange(len(parts.test)), first.read_image_ids()),
    )
    names = [backbone.weights for backbone in backbones]
    path = results / f"{file_stem(data, transfer.name, {**setting, 'rows': names, 'seeds': settings.seeds})}.json"
    write_bytes(path.with_suffix(".npz"), table.npz(), first.path)
    first.write_result(path, {**table.to_json(), "predictions": path.with_suffix(".npz").name, **stamp})
    return table


def _one_step(
    backbone: Backbone,
    transfer: Transfer[Any],
    train: AnnotatedSource,
    settings: TransferSettings,
    size: int,
    seed: int,
    rate: float,
) -> Pretraining:
    """A training of one step, with a copy of the encoder and heads with random weights."""
    encoder, task = deepcopy(backbone.encoder(seed)).cpu(), transfer.task(size, settings.freeze_until)
    with seeded_rng(seed, "heads"):
        heads = task.heads(encoder, train)
    batch_size = min(settings.batch_size, len(train))
    return Pretraining(task, encoder, heads, train, Optimization(learning_rate=rate), 1, batch_size, seed)


def _plan(
    root: Path,
    backbone: Backbone,
    transfer: Transfer[Any],
    train: AnnotatedSource,
    settings: TransferSettings,
    size: int,
    device: torch.device,
) -> tuple[int, str]:
    """Steps and precision of all trainings, recorded with those of the first encoder."""
    path, place = root / PLAN, backbone.folder.path
    if not exists(path):
        run = _one_step(backbone, transfer, train, settings, size, 0, settings.learning_rates[0])
        budget = settings.budget or Budget(steps=max(MIN_STEPS, EPOCHS * run.steps_per_pass))
        precision = choose_precision("auto", device)
        plan = make_plan(run, budget, device=str(device), precision=precision, compiling="off")
        write_text(path, json.dumps({"steps": plan.steps, "precision": precision}), place)
    planned = read_typed(path, place, TrainingPlan)
    return planned["steps"], planned["precision"]


def _validated(source: AnnotatedSource) -> AnnotatedSource:
    """The validation images, evenly spaced if there are more than `VALIDATED`."""
    return source if len(source) <= VALIDATED else source.part(evenly_spaced(VALIDATED, len(source)).tolist())
