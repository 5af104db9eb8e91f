"""A few steps of every task in the present process or as one of several.

Each process writes what it saw and what came of it, for `test_processes.py` to compare.
"""

import copy
import io
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from tiny_tasks import NARROW_HEADS, OPTIONS, OTHER_WAYS
from torch import Tensor, nn
from toy_tasks import TOYS, encoder_for

from selftaught.augment.draws import common
from selftaught.augment.warp import identity, random_crop
from selftaught.contracts import Encoder, Task
from selftaught.modules import losses
from selftaught.modules.processes import processes
from selftaught.pretext import TASKS, task_class
from selftaught.pretext.rotation import Rotation
from selftaught.pretext.simclr import SimCLR
from selftaught.runs.checkpoint import Checkpoints
from selftaught.runs.log import read_log
from selftaught.training.distributed import joined
from selftaught.training.log import Log
from selftaught.training.loop import Pretraining, Trainer, train
from selftaught.training.optimizer import Optimization
from selftaught.training.plan import make_fabric
from toys import ToyEncoder, ToySource

BATCH = 12


class NormedEncoder(ToyEncoder):
    """Two convolutions with batch norm."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.first = nn.Sequential(self.first, nn.BatchNorm2d(8))
        self.second = nn.Sequential(self.second, nn.BatchNorm2d(16))


@dataclass(frozen=True)
class OwnNegativesOnly(SimCLR):
    """Wrong: negatives are those of the own process."""

    def loss(self, encoder: Encoder, heads: nn.ModuleDict, views: Any, progress: float = 0.0) -> Any:
        gather, losses.gather = losses.gather, lambda rows: rows
        own, losses.own = losses.own, lambda rows: rows
        try:
            return super().loss(encoder, heads, views, progress)
        finally:
            losses.gather, losses.own = gather, own


@dataclass(frozen=True)
class FractionOfTheGradient(SimCLR):
    """Wrong: gathered rows of other processes pass no gradient, as in many implementations."""

    def loss(self, encoder: Encoder, heads: nn.ModuleDict, views: Any, progress: float = 0.0) -> Any:
        gather = losses.gather

        def detached(rows: Tensor) -> Tensor:
            return gather(rows.detach()) if processes().count > 1 else rows

        losses.gather = detached
        try:
            return super().loss(encoder, heads, views, progress)
        finally:
            losses.gather = gather


@dataclass(frozen=True)
class SameDraws(Rotation):
    """Wrong: images of different processes get the same crops."""

    def views(self, batch: Any, generator: torch.Generator) -> Any:
        crops = random_crop(len(batch), common(generator), scale=(0.3, 0.5))
        return {"images": batch.warp(crops, 16), "angle": batch.index % 4}


@dataclass(frozen=True)
class MeanOfRatios(Rotation):
    """Wrong: divided by the number of images of the own process that count, which differs between processes."""

    def views(self, batch: Any, generator: torch.Generator) -> Any:
        return {"images": batch.warp(identity(len(batch)), 16), "angle": batch.index % 4}

    def loss(self, encoder: Encoder, heads: nn.ModuleDict, views: Any, progress: float = 0.0) -> Any:
        logits, counts = heads["angle"](encoder(views["images"])), views["angle"] > 0
        each = nn.functional.cross_entropy(logits, views["angle"], reduction="none")
        return (each * counts).sum() / counts.sum(), {}


WRONG = (OwnNegativesOnly, FractionOfTheGradient, SameDraws, MeanOfRatios)
CASES: dict[str, tuple[type[Task], dict[str, object]]] = {
    **{name: (task_class(name), {}) for name in TASKS},
    **{f"{name} {options}": (task_class(name), options) for name, options in OTHER_WAYS},
    **{f"toy {name}": (kind, {}) for name, kind in TOYS.items()},
    **{kind.__name__: (kind, {}) for kind in WRONG},
}


def built(kind: type[Task], options: dict[str, object], steps: int) -> Pretraining:
    """A task with its encoder, which has batch norm where it can."""
    torch.manual_seed(0)
    source = ToySource()
    easy = next((OPTIONS[base] for base in kind.__mro__ if base in OPTIONS), {})
    task = kind(size=8 if kind.__name__ == "NextWord" else 16, **{**easy, **options})
    encoder = encoder_for(task)
    if type(encoder) is ToyEncoder:
        encoder = NormedEncoder(size=16, **task.encoder_options())
    encoder.fit(source)
    heads = task.heads(encoder, source)
    # SGD: AdamW turns rounding errors of gradients that are 0 into steps of full length.
    optimization = Optimization("sgd", learning_rate=0.02, schedule="constant", warmup=0.0)
    return Pretraining(task, encoder, heads, source, optimization, steps, BATCH, 0)


def trained(name: str, steps: int, folder: Path, noise: float = 0.0) -> dict[str, Any]:
    """Losses, views of this process, and final weights and buffers.

    Args:
        name: of `CASES`.
        steps: number of steps.
        folder: for log and checkpoint.
        noise: relative standard deviation of a change of the initial weights, to see what training makes of rounding.
    """
    kind, options = CASES[name]
    run = built(kind, options, steps)
    if noise:
        with torch.no_grad():
            for weight in (*run.encoder.parameters(), *run.heads.parameters()):
                weight.mul_(1 + noise * torch.randn(weight.shape))
    seen: list[dict[str, Tensor]] = []
    make = kind.views

    def remembered(task: Task, batch: Any, generator: torch.Generator) -> Any:
        seen.append(make(task, batch, generator))
        return seen[-1]

    with ExitStack() as stack:
        kind.views = remembered  # type: ignore[method-assign]
        stack.callback(setattr, kind, "views", make)
        start = copy.deepcopy(state_of(run))
        trainer = Trainer(make_fabric(torch.device("cpu"), "32", run.has_critic), run)
        log = Log(folder / "log.jsonl", steps, BATCH, {}, 1, Console(file=io.StringIO()))
        train(run, trainer, Checkpoints(folder / "checkpoint"), log)
    lines = read_log(folder / "log.jsonl") if processes().rank == 0 else []
    return {
        "lines": [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines],
        "views": seen,
        "start": start,
        "state": state_of(run),
    }


def state_of(run: Pretraining) -> dict[str, Tensor]:
    parts = {"encoder": run.encoder, "heads": run.heads}
    return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}


def all_trained(folder: Path, steps: int, names: Iterable[str] = CASES, noise: float = 0.0) -> dict[str, Any]:
    """`trained` of some cases."""
    results = {}
    for number, name in enumerate(names):
        place = folder / f"{number}-of-{processes().count}"
        place.mkdir(parents=True, exist_ok=True)
        results[name] = trained(name, steps, place, noise)
    return results


def narrow() -> None:
    for change in NARROW_HEADS:
        setattr(*change)


def save_all_trained(folder: Path, steps: int, names: Iterable[str]) -> None:
    """Save the `all_trained` of this process in FOLDER/rankN.pt."""
    narrow()
    with joined("cpu"):
        found = all_trained(folder, steps, names)
        torch.save(found, folder / f"rank{processes().rank}.pt")
