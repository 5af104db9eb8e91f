"""The trainings of an evaluation with labels, in `finetune/` of a run.

For each number of labels and repetition, each way to train has a folder, see `repetitions.py`.
"""

import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from selftaught.api.repetitions import PLAN, RESULT, Recorded, Repetitions
from selftaught.config.build import supervised_pretraining
from selftaught.contracts import Encoder, Source
from selftaught.display.progress import Meter
from selftaught.evaluation.baselines.cache import BaselineCache
from selftaught.evaluation.evaluator import Evaluator, pass_length
from selftaught.evaluation.features import Viewing
from selftaught.evaluation.few_labels import LabelCount, Subset, draw_labels, labels_of, split_validation
from selftaught.evaluation.finetune_table import FROM_SCRATCH, Repetition
from selftaught.evaluation.finetuning import DEFAULT_PROBE, EPOCHS, MIN_STEPS, FineTuning, classify
from selftaught.evaluation.gain import best_layer
from selftaught.evaluation.probes import make_probe
from selftaught.runs.files import exists, make_folder
from selftaught.runs.validated import TrainingPlan
from selftaught.training.loop import Pretraining
from selftaught.training.optimizer import Optimization
from selftaught.training.plan import Budget
from selftaught.training.randomness import seeded_rng

EVALUATIONS = 10
"""How often a training is evaluated on the validation images."""
TUNED, PROBES = "fine-tuned", ("probe", "probe, random weights")
"""Names of the ways to train, beside `FROM_SCRATCH`."""


@dataclass(frozen=True)
class Trainings:
    """Everything that the trainings of one evaluation share."""

    root: Path
    """Folder of the trainings."""
    repetitions: Repetitions
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

    @property
    def probes(self) -> tuple[str, ...]:
        """The ways to probe: random weights only if the encoder has parameters."""
        return PROBES if self.encoder.has_parameters else PROBES[:1]

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways to train that are compared, the pretrained one first."""
        names = self.probes if self.settings.frozen else (TUNED,)
        return (*names, FROM_SCRATCH) if self.settings.from_scratch else names

    @property
    def device(self) -> torch.device:
        """Where to compute."""
        return self.repetitions.device

    def repetition(self, name: str, count: LabelCount, number: int) -> Repetition:
        """Train in one of the ways of `ways`, or read the recorded result.

        Raises:
            Stopped: a signal stopped it.
        """
        folder = self._folder(name, count, number)

        def compute() -> None:
            chosen = draw_labels(self.labels, count, number)
            if name in PROBES:
                self._probe(chosen, number, [self._folder(each, count, number) for each in self.probes])
            else:
                self._train(name, folder, chosen, number)

        def check(found: Recorded) -> bool:
            correct = found.arrays["correct"]
            return correct.dtype == bool and correct.shape == (self.tested,)

        found = self.repetitions.result(folder, compute, check)
        return Repetition(torch.from_numpy(found.arrays["correct"]), **found.facts)

    @cached_property
    def tested(self) -> int:
        """Number of labeled test images."""
        return int((labels_of(self.test) >= 0).sum())

    def is_finished(self, name: str, count: LabelCount, number: int) -> bool:
        """Whether the result of `repetition` is recorded, and that of what is done with it."""
        names = self.probes if name in PROBES else (name,)
        return all(exists(self._folder(each, count, number) / RESULT) for each in names)

    def _folder(self, name: str, count: LabelCount, number: int) -> Path:
        labels = re.sub(r"\W+", "-", count.name.replace("%", "percent"))
        probe = f"-{self.settings.probe}" if name in PROBES and self.settings.probe != DEFAULT_PROBE else ""
        way = re.sub(r"\W+", "-", name) + probe
        return self.root / labels / f"{way}-{number}"

    def split(self, chosen: Tensor, number: int) -> tuple[Source, Source]:
        """The training and the validation images among the labeled ones."""
        fit, held = split_validation(self.labels[chosen], number)
        return Subset(self.train, chosen[fit]), Subset(self.train, chosen[held])

    def _probe(self, chosen: Tensor, number: int, folders: Sequence[Path]) -> None:
        """Probe every layer of the pretrained encoder and of random weights, and record the best layer of either.

        Every draw has other random weights, so the spread over draws includes that over initializations.
        """
        probe, train = make_probe(self.settings.probe), Subset(self.train, chosen)
        viewing = Viewing(self.size, self.device, probe.dimensions)
        with Meter("probe", len(folders) * pass_length(probe, train, self.test)) as meter:
            evaluator = Evaluator(probe, train, self.test, viewing, BaselineCache(None, {}), meter)
            results = [evaluator(self.encoder, 0, "pretrained")]
            if len(folders) > 1:
                results.append(evaluator.random(self.fresh(number), None))
        for folder, result in zip(folders, results, strict=True):
            layer = best_layer([result])
            facts = {"held_out": result[layer].held_out, "layer": layer}
            self.repetitions.record(folder, Recorded(facts, {"correct": result[layer].observations}))

    def _train(self, name: str, folder: Path, chosen: Tensor, seed: int) -> None:
        """Train, test the chosen weights and record the result; keep models fine-tuned with all labels."""
        fit, held = self.split(chosen, seed)

        def make(rate: float) -> Pretraining:
            run = self._pretraining(name, fit, rate, seed)
            return replace(run, steps=self._plan(folder.parent, run)["steps"])

        def validate(encoder: Encoder, heads: torch.nn.ModuleDict) -> tuple[float, float]:
            correct, loss = classify(encoder, heads["label"], held, self.size, self.device)
            return float(correct.double().mean()), -loss

        first = self._pretraining(name, fit, self.settings.learning_rates[0], seed)
        precision = self._plan(folder.parent, first)["precision"]
        best = self.repetitions.choose(folder, name, make, validate, precision)
        correct, _ = classify(best.encoder, best.heads["label"], self.test, self.size, self.device)
        if name == TUNED and len(chosen) == int((self.labels >= 0).sum()):
            self.repetitions.keep_model(folder, best)
        self.repetitions.record(folder, Recorded(best.facts(), {"correct": correct.numpy()}))

    def _pretraining(self, name: str, fit: Source, rate: float, seed: int) -> Pretraining:
        """One training, of a number of steps that is not planned yet."""
        tuned = name == TUNED
        encoder = deepcopy(self.encoder).cpu() if tuned else self.fresh(seed)
        with seeded_rng(seed, "classifier"):
            return supervised_pretraining(
                encoder, fit, size=self.size, seed=seed, batch_size=self.settings.batch_size,
                optimization=Optimization(learning_rate=rate),
                layer_decay=self.settings.layer_decay if tuned else 1.0,
                freeze_until=self.settings.freeze_until if tuned else None,
            )  # fmt: skip

    def prepare(self, count: LabelCount) -> None:
        """Plan the trainings with a number of labels, if there are any, before several processes do them."""
        if name := next((way for way in self.ways if way not in PROBES), None):
            fit, _ = self.split(draw_labels(self.labels, count, 0), 0)
            folder = self._folder(name, count, 0).parent
            make_folder(folder, self.repetitions.run)
            self._plan(folder, self._pretraining(name, fit, self.settings.learning_rates[0], 0))

    def steps(self, count: LabelCount) -> int | None:
        """Steps of each training with a number of labels; None if there was none."""
        folder = self._folder("", count, 0).parent
        return self.repetitions.planned(folder)["steps"] if exists(folder / PLAN) else None

    def _plan(self, folder: Path, run: Pretraining) -> TrainingPlan:
        """The plan of all trainings with this number of labels."""

        def budget(run: Pretraining) -> Budget:
            return self.settings.budget or Budget(steps=max(MIN_STEPS, EPOCHS * run.steps_per_pass))

        return self.repetitions.plan(folder, lambda: run, budget)


def training_settings(settings: FineTuning) -> dict[str, object]:
    """The settings on which a single training depends."""
    others = ("frozen", "probe", "from_scratch", "labels_per_class", "label_fraction", "seeds", "draws")
    return {name: value for name, value in asdict(settings).items() if name not in others}
