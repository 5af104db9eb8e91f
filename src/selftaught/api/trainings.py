"""The trainings of an evaluation with labels, in `finetune/` of a run: each is resumable and done once.

For each number of labels and repetition, each way to train has a folder with one training per learning rate. What is
finished is recorded there, so the same command continues after an interruption.
"""

import io
import json
import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

from selftaught.api.best import Stopped, best_weights, train_best
from selftaught.config.build import supervised_pretraining
from selftaught.contracts import Encoder, Source
from selftaught.errors import DivergedError, UserError, readable
from selftaught.evaluation.few_labels import LabelCount, Subset, draw_labels, labels_of, split_validation
from selftaught.evaluation.finetune_table import Repetition
from selftaught.evaluation.finetuning import EPOCHS, MIN_STEPS, FineTuning, classify
from selftaught.evaluation.layers import probe_layers
from selftaught.runs.atomic import write_bytes, write_text
from selftaught.runs.files import exists, make_folder, read_limited, remove_tree
from selftaught.runs.models import mismatch
from selftaught.runs.parse import parse_arrays, parse_json
from selftaught.runs.result_models import Training
from selftaught.runs.validated import TrainingPlan, read_typed
from selftaught.runs.weights import weights_bytes
from selftaught.training.interruption import Stop
from selftaught.training.loop import Pretraining
from selftaught.training.optimizer import Optimization
from selftaught.training.plan import Budget, choose_precision, make_plan
from selftaught.training.randomness import seeded_rng

EVALUATIONS = 10
"""How often a training is evaluated on the validation images."""
TUNED, SCRATCH, PROBES = "fine-tuned", "from scratch", ("probe", "probe, random weights")
"""Names of the ways to train."""
RESULT, PLAN = "result.npz", "plan.json"
MAX_BYTES = 2**28
"""Maximum size of a file of results."""


@dataclass(frozen=True)
class Trainings:
    """Everything that the trainings of one evaluation share."""

    root: Path
    """Folder of the trainings."""
    run: Path
    """The run folder."""
    encoder: Encoder
    """The pretrained encoder."""
    fresh: Callable[[int], Encoder]
    """Seed -> the same encoder with random weights."""
    train: Source
    test: Source
    labels: Tensor
    """(N,) int64, of the training images."""
    size: int
    settings: FineTuning
    device: torch.device
    stop: Stop
    console: Console

    def repetition(self, name: str, count: LabelCount, number: int) -> Repetition:
        """Train in one of the ways `ways` lists, or read the recorded result.

        Raises:
            Stopped: a signal stopped it.
        """
        folder = self._folder(name, count, number)
        path = folder / RESULT
        if not exists(path):
            if self.stop.requested:
                raise Stopped
            chosen = draw_labels(self.labels, count, number)
            if name in PROBES:
                self._probe(chosen, [self._folder(each, count, number) for each in PROBES])
            else:
                make_folder(folder, self.run)
                write_bytes(path, _packed(self._trained(name, folder, chosen, number)), self.run)
        for left in (*folder.glob("rate-*/checkpoint"), *folder.glob("rate-*/best")):
            remove_tree(left, self.run)
        return _unpacked(path, self.run, self.tested)

    @cached_property
    def tested(self) -> int:
        """Number of labeled test images."""
        return int((labels_of(self.test) >= 0).sum())

    def is_finished(self, name: str, count: LabelCount, number: int) -> bool:
        """Whether the result of `repetition` is recorded, and that of what is done with it."""
        names = PROBES if name in PROBES else (name,)
        return all(exists(self._folder(each, count, number) / RESULT) for each in names)

    def _folder(self, name: str, count: LabelCount, number: int) -> Path:
        labels = re.sub(r"\W+", "-", count.name.replace("%", "percent"))
        way = re.sub(r"\W+", "-", name)
        return self.root / labels / f"{way}-{number}"

    def split(self, chosen: Tensor, number: int) -> tuple[Source, Source]:
        """The training and the validation images among the labeled ones."""
        fit, held = split_validation(self.labels[chosen], number)
        return Subset(self.train, chosen[fit]), Subset(self.train, chosen[held])

    def _probe(self, chosen: Tensor, folders: Sequence[Path]) -> None:
        """Probe every layer of the pretrained encoder and of random weights, and record the best layer of either."""
        table = probe_layers(
            self.encoder, self.fresh, Subset(self.train, chosen), self.test, size=self.size, device=self.device,
            initializations=1,
        )  # fmt: skip
        correctness = table.correctness
        assert correctness is not None
        rows = {row.layer: row for row in table.layers}
        layer, random_layer = table.gain.layer, table.gain.random_layer
        pairs = (
            (layer, correctness.trained, rows[layer].held_out),
            (random_layer, correctness.random, rows[random_layer].random_held_out),
        )
        for folder, (best, correct, held_out) in zip(folders, pairs, strict=True):
            of_layer = torch.from_numpy(correct[0, correctness.layers.index(best)])
            write_bytes(folder / RESULT, _packed(Repetition(of_layer, held_out, layer=best)), self.run)

    def _trained(self, name: str, folder: Path, chosen: Tensor, seed: int) -> Repetition:
        """Train with each learning rate, and test the weights that are best on the validation images."""
        fit, held = self.split(chosen, seed)
        outcomes = []
        for rate in self.settings.learning_rates:
            run = self._pretraining(name, fit, rate, seed, folder.parent)
            outcomes.append((*_train(self, folder / f"rate-{rate:g}", run, held), rate))
        accuracy, _, step, rate = max(outcomes)
        if step == 0:
            raise DivergedError(f"the loss became NaN or infinite with every learning rate of {name}: try lower ones.")
        run = self._pretraining(name, fit, rate, seed, folder.parent)
        best = best_weights(folder / f"rate-{rate:g}", run).load()
        if best is None:
            raise UserError(f"the weights in {readable(str(folder))} are missing: remove the folder and repeat.")
        run.encoder.load_state_dict(best["encoder"]), run.heads.load_state_dict(best["heads"])
        run.encoder.to(self.device), run.heads.to(self.device)
        correct, _ = classify(run.encoder, run.heads["label"], self.test, self.size, self.device)
        if name == TUNED and len(chosen) == int((self.labels >= 0).sum()):
            tensors = {f"{part}.{key}": value for part in ("encoder", "heads") for key, value in best[part].items()}
            write_bytes(folder / "model.safetensors", weights_bytes(tensors), self.run)
        return Repetition(correct, accuracy, rate, step)

    def _pretraining(self, name: str, fit: Source, rate: float, seed: int, folder: Path) -> Pretraining:
        """One training; the number of its steps is planned once for all with this number of labels."""
        tuned = name == TUNED
        encoder = deepcopy(self.encoder).cpu() if tuned else self.fresh(seed)
        with seeded_rng(seed, "classifier"):
            run = supervised_pretraining(
                encoder, fit, size=self.size, seed=seed, batch_size=self.settings.batch_size,
                optimization=Optimization(learning_rate=rate),
                layer_decay=self.settings.layer_decay if tuned else 1.0,
                freeze_until=self.settings.freeze_until if tuned else None,
            )  # fmt: skip
        return replace(run, steps=self.plan(run, folder)[0])

    def prepare(self, count: LabelCount) -> None:
        """Plan the trainings with a number of labels, if there are any, before several processes do them."""
        if name := next((way for way in ways(self.settings) if way not in PROBES), None):
            fit, _ = self.split(draw_labels(self.labels, count, 0), 0)
            folder = self._folder(name, count, 0).parent
            make_folder(folder, self.run)
            self._pretraining(name, fit, self.settings.learning_rates[0], 0, folder)

    def steps(self, count: LabelCount) -> int | None:
        """Steps of each training with a number of labels; None if there was none."""
        path = self._folder("", count, 0).parent / PLAN
        return read_typed(path, self.run, TrainingPlan)["steps"] if exists(path) else None

    def plan(self, run: Pretraining, folder: Path) -> tuple[int, str]:
        """Steps and precision of the trainings in a folder, recorded there by the first one."""
        path = folder / PLAN
        if not exists(path):
            default = Budget(steps=max(MIN_STEPS, EPOCHS * run.steps_per_pass))
            budget, precision = self.settings.budget or default, choose_precision("auto", self.device)
            plan = make_plan(run, budget, device=str(self.device), precision=precision, compiling="off")
            write_text(path, json.dumps({"steps": plan.steps, "precision": precision}), self.run)
        planned = read_typed(path, self.run, TrainingPlan)
        return int(planned["steps"]), str(planned["precision"])


def ways(settings: FineTuning) -> list[str]:
    """The ways to train that are compared, the pretrained one first."""
    names = list(PROBES) if settings.frozen else [TUNED]
    return [*names, *([SCRATCH] if settings.from_scratch else [])]


def _train(trainings: Trainings, folder: Path, run: Pretraining, held: Source) -> tuple[float, float, int]:
    """Train to the end and keep the weights that are best on the validation images.

    Returns:
        Validation accuracy, negative cross-entropy and step of the best weights; step 0 if the training diverged.
    """

    def validate(encoder: Encoder, heads: torch.nn.ModuleDict) -> tuple[float, float]:
        correct, loss = classify(encoder, heads["label"], held, trainings.size, trainings.device)
        return float(correct.double().mean()), -loss

    return train_best(
        run, folder, trainings.run, validate=validate, evaluations=EVALUATIONS, device=trainings.device,
        precision=trainings.plan(run, folder.parent.parent)[1], name="accuracy", console=trainings.console,
        stop=trainings.stop,
    )  # fmt: skip


def _packed(result: Repetition) -> bytes:
    file = io.BytesIO()
    facts = {name: value for name, value in vars(result).items() if name != "correct"}
    np.savez_compressed(file, correct=result.correct.numpy(), facts=np.array(json.dumps(facts)))
    return file.getvalue()


def _unpacked(path: Path, root: Path, tested: int) -> Repetition:
    """Read a recorded result.

    Args:
        path: the file.
        root: the run folder.
        tested: number of labeled test images.

    Raises:
        UserError: the file is damaged.
    """
    content = read_limited(path, root, MAX_BYTES)
    try:
        arrays = parse_arrays(content)
        facts, correct = parse_json(str(arrays["facts"]).encode()), arrays["correct"]
        if correct.dtype != bool or correct.shape != (tested,) or mismatch(Training, facts):
            raise ValueError("other content than that of a training")
        return Repetition(torch.from_numpy(correct), **facts)
    except Exception as error:  # numpy, zip and JSON raise many exception types for damaged files
        raise UserError(f"{readable(str(path))} is damaged: remove it and repeat the command.") from error


def training_settings(settings: FineTuning) -> dict[str, object]:
    """The settings on which a single training depends."""
    others = ("frozen", "from_scratch", "labels_per_class", "label_fraction", "seeds", "draws")
    return {name: value for name, value in asdict(settings).items() if name not in others}
