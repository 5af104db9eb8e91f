"""The plan of a study: every variant is built and checked, and its time estimated, before anything is trained."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from time import monotonic

import torch
from rich.console import Group
from rich.table import Table
from rich.text import Text

from selftaught.augment.warp import identity
from selftaught.config.build import Built
from selftaught.config.settings import Settings
from selftaught.contracts import Encoder, Source
from selftaught.display.progress import Meter, announce, duration
from selftaught.errors import UserError
from selftaught.evaluation.finetuning import EPOCHS, MIN_STEPS, FineTuning
from selftaught.evaluation.layers import INITIALIZATIONS
from selftaught.modules.depth import require_layer
from selftaught.studies.checks import check_comparison, check_evaluation, check_source, common_settings
from selftaught.studies.definition import Evaluation
from selftaught.studies.grid import Grid, Variant, build_variant, in_variant, try_baseline
from selftaught.studies.results import finetuning_settings
from selftaught.training.machine import hardware, use_threads
from selftaught.training.plan import Budget, Plan, Precision, choose_device, choose_precision, make_plan


@dataclass(frozen=True)
class Estimate:
    """The estimated time of the runs of one variant."""

    variant: Variant
    seeds: int
    images: int
    steps: int
    """Steps of each run; 0 for a baseline."""
    precision: str
    """Precision of training: the variant's, or what `auto` chose, once for all runs; empty for a baseline."""
    step_seconds: float
    """Measured seconds per step."""
    evaluation_seconds: float
    """Rough seconds of the evaluations of one run."""

    @property
    def seconds(self) -> float:
        """All runs of the variant."""
        return self.seeds * (self.steps * self.step_seconds + self.evaluation_seconds)


@dataclass(frozen=True)
class StudyPlan:
    """The runs of a study and the time that they take."""

    name: str
    scale: str
    grid: Grid
    estimates: tuple[Estimate, ...]
    jobs: int
    threads: int
    hardware: str

    @property
    def minutes(self) -> float:
        """Estimated minutes of all runs and evaluations."""
        return sum(each.seconds for each in self.estimates) / self.jobs / 60

    @property
    def steps(self) -> dict[str, int]:
        """Steps of the variants whose budget is in minutes."""
        return {each.variant.name: each.steps for each in self.estimates if each.variant.minutes is not None}

    @property
    def precision(self) -> dict[str, str]:
        """Precision of every variant that is trained: `auto` is decided once, because it measures on a CPU."""
        return {each.variant.name: each.precision for each in self.estimates if each.precision}

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "study": self.name,
            "scale": self.scale,
            "runs": len(self.grid.cells),
            "jobs": self.jobs,
            "threads": self.threads,
            "minutes": self.minutes,
            "hardware": self.hardware,
            "variants": [
                {
                    "name": each.variant.name, "source": list(each.variant.data), "images": each.images,
                    "seeds": each.seeds, "steps": each.steps, "minutes": each.seconds / 60,
                }
                for each in self.estimates
            ],
        }  # fmt: skip


def make_study_plan(name: str, scale: str, grid: Grid, jobs: int, threads: int) -> StudyPlan:
    """Build every variant, open every source of labeled images, and time a few steps.

    Raises:
        UserError: a variant cannot be built, a layer of a comparison does not exist, or images are missing.
    """
    images = [check_evaluation(grid, number) for number in range(1, len(grid.evaluations) + 1)]
    estimates, layers = [], {}
    if any(variant.minutes is not None for variant in grid.variants) and (load := _load_of_others(threads)):
        announce(
            f"this machine is busy (load {load:.1f}), so steps are measured as slower than they are alone, and "
            "variants may get unequal numbers of them: better start the study when nothing else runs."
        )
    decide = cache(choose_precision)  # `auto` measures on a CPU, and all runs must get the same
    with use_threads(threads), Meter("checking variants", len(grid.variants)) as meter:
        for variant in grid.variants:
            try:
                estimate, layers[variant.name] = _estimate(grid, variant, images, decide)
            except UserError as error:
                raise in_variant(variant.name, error) from error
            estimates.append(estimate)
            meter.advance()
        for comparison in (grid.study.comparison, *grid.study.further):
            check_comparison(grid, comparison, layers)
        device = Settings.of(**common_settings(grid)).general.device
        machine = hardware(choose_device(device))
    return StudyPlan(name, scale, grid, tuple(estimates), jobs, threads, machine)


def _load_of_others(threads: int) -> float:
    """The load of the last minute, if other programs would take processor time from this many threads; else 0."""
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):  # not on this system
        return 0.0
    return load if load + threads > (os.cpu_count() or 1) + 1 else 0.0


def _estimate(
    grid: Grid, variant: Variant, images: Sequence[int], decide: Callable[[Precision, torch.device], Precision]
) -> tuple[Estimate, list[str]]:
    """The time of a variant, and the layers of its encoder."""
    seeds = sum(cell.variant is variant for cell in grid.cells)
    if variant.baseline is not None:
        check_source(variant)
        return Estimate(variant, seeds, 0, 0, "", 0.0, 0.0), try_baseline(variant)
    built: Built = build_variant(variant)
    pretraining = built.pretraining
    general = Settings.of(**variant.settings).general
    for evaluation in grid.evaluations:
        freeze = None if evaluation.finetune is None else evaluation.finetune.get("freeze_until")
        if freeze is not None:
            require_layer(pretraining.encoder, freeze)
    precision = decide(general.precision, choose_device(general.device))
    plan = measure(built, variant.minutes or 1.0, general.device, precision)
    step = plan.seconds_per_step or 0.0
    if variant.minutes is not None:
        steps = plan.steps
    elif general.steps is not None:
        steps = general.steps
    else:
        assert general.epochs is not None
        steps = max(1, round(general.epochs * pretraining.steps_per_pass))
    forward = _forward_seconds(pretraining.encoder, pretraining.source, pretraining.task.size)
    evaluations = sum(
        _evaluation_seconds(one, count, forward, step / pretraining.batch_size, seeds)
        for one, count in zip(grid.evaluations, images, strict=True)
    )
    estimate = Estimate(variant, seeds, len(pretraining.source), steps, plan.precision, step, evaluations)
    return estimate, list(pretraining.encoder.layers)


def measure(built: Built, minutes: float, device: str, precision: Precision) -> Plan:
    """Time some steps on a copy of everything, as `pretrain --minutes` does."""
    budget = Budget(minutes=minutes)
    return make_plan(built.pretraining, budget, device=device, precision=precision, compiling="off")


def _forward_seconds(encoder: Encoder, source: Source, size: int) -> float:
    """Seconds per image of all layers."""
    batch = source.batch(torch.arange(min(64, len(source))), torch.device("cpu"))
    views = batch.warp(identity(len(batch)), size)
    training = encoder.training
    encoder.eval()
    with torch.no_grad():
        encoder.features(encoder.preprocess(views))
        begun = monotonic()
        encoder.features(encoder.preprocess(views))
    encoder.train(training)
    return (monotonic() - begun) / len(batch)


def _evaluation_seconds(evaluation: Evaluation, images: int, forward: float, step: float, seeds: int) -> float:
    """Roughly: a probe takes twice the time of its forward passes; random weights are probed once for all seeds."""
    if evaluation.audit is not None:
        return 30 * forward * int(evaluation.audit.get("images", 1000))
    if evaluation.probe is not None:
        return 2 * images * forward * (1 + INITIALIZATIONS / seeds)
    settings = FineTuning(**finetuning_settings(evaluation))
    counts = len(settings.labels_per_class) + len(settings.label_fraction)
    repetitions = max(counts, 1) * settings.repetitions(not counts)
    trainings = (0 if settings.frozen else 1) + settings.from_scratch
    steps = settings.steps or MIN_STEPS * (1 if counts else EPOCHS)
    probing = 4 * images * forward if settings.frozen else 0.0
    rates = len(settings.learning_rates)
    return repetitions * (probing + trainings * rates * steps * settings.batch_size * max(step / 3, 3 * forward))


def render(plan: StudyPlan) -> Group:
    """The plan for the terminal."""
    table = Table(box=None, pad_edge=False)
    table.add_column("variant")
    table.add_column("source")
    for heading in ("images", "seeds", "steps", "minutes"):
        table.add_column(heading, justify="right")
    for each in plan.estimates:
        name, data = Text(each.variant.name), Text(" ".join(each.variant.data))
        images = f"{each.images:,}" if each.images else ""
        table.add_row(name, data, images, str(each.seeds), f"{each.steps:,}", f"{each.seconds / 60:,.1f}")
    evaluations = ", ".join(one.title for one in plan.grid.evaluations)
    runs = len(plan.grid.cells)
    summary = (
        f"\n{runs} run{'s' * (runs != 1)}, each evaluated by: {evaluations}\n"
        f"about {duration(60 * plan.minutes)} with --jobs {plan.jobs} (training measured, evaluations roughly "
        f"estimated) on {plan.hardware}"
    )
    return Group(Text(plan.grid.study.question + "\n"), table, Text(summary))
