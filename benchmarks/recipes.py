"""One training, two ways: ours, and the usual recipe written out plainly. Same net, images, batch, loss and optimizer.

Ours is the library's own `train`, with what it chooses for this machine: precision by measurement, channels last, freed
memory kept. The usual recipe is fp32, channels first, transforms per image in loader workers. `keep_freed_memory` is a
setting of a process, so each way has a process of its own (see `steps`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from torch import Tensor, nn
from torchvision.transforms import v2

from benchmarks.images import Loaded, Pictures, View, noise, stored
from benchmarks.interleaved import rate
from benchmarks.two_views import TwoViews, contrastive, projection
from benchmarks.views import TorchvisionViews
from selftaught.cli.process import keep_freed_memory
from selftaught.contracts import Encoder, ParameterGroup, Task
from selftaught.encoders import make_encoder
from selftaught.pretext.rotation import Rotation
from selftaught.runs.checkpoint import Checkpoints
from selftaught.training.log import Log
from selftaught.training.loop import Pretraining, Trainer, train
from selftaught.training.optimizer import Optimization
from selftaught.training.plan import choose_precision, make_fabric

CPU = torch.device("cpu")
WARM = 2
"""Steps before the clock starts, in each round."""


@dataclass(frozen=True)
class Job:
    """What is trained."""

    task: Literal["rotation", "two views"]
    encoder: str
    size: int
    """Side of the views in pixels; images have 32, or a quarter more than the views where these are larger."""
    views: int
    """Views per step: four of each image for rotation, two for two views."""
    images: int
    workers: int
    threads: int | None
    seconds: float
    """Per measurement, at least three steps."""

    @property
    def batch_size(self) -> int:
        """Images per step."""
        return self.views // (4 if self.task == "rotation" else 2)

    def pixels(self) -> np.ndarray:
        """(N, 3, S, S) uint8."""
        return noise(self.images, 32 if self.size <= 32 else self.size * 5 // 4)

    def net(self) -> Encoder:
        """The encoder with the weights that both ways begin with."""
        torch.manual_seed(0)
        return make_encoder(self.encoder, size=self.size)


class Side(ABC):
    """One way to train."""

    about: str
    """What is particular to it, in words."""

    @abstractmethod
    def whole(self) -> float:
        """Images per second, from stored images to moved weights."""

    @abstractmethod
    def alone(self) -> float:
        """Images per second of the step alone, on views that are there."""


class Ours(Side):
    """The library's own loop."""

    def __init__(self, job: Job) -> None:
        keep_freed_memory()
        self.job, source = job, stored(job.pixels())
        task: Task = Rotation(size=job.size) if job.task == "rotation" else TwoViews(size=job.size)
        encoder = job.net()
        heads = task.heads(encoder, source)
        self.run = Pretraining(task, encoder, heads, source, Optimization(), 1, job.batch_size, 0)
        precision = choose_precision("auto", CPU)
        self.trainer = Trainer(make_fabric(CPU, precision), self.run)
        self.views = task.views(source.batch(torch.arange(job.batch_size), CPU), torch.Generator().manual_seed(0))
        self.about = f"{'fp32' if precision == '32' else precision}, channels last"
        self.steps = 3

    def whole(self) -> float:
        """See `Side`. Every step writes a line of the log, where a run writes 400 in all."""
        ends: list[float] = []
        run = replace(self.run, steps=WARM + self.steps)
        with TemporaryDirectory() as folder:
            log = Log(Path(folder) / "log.jsonl", run.steps, run.batch_size, {}, 1, Console(file=StringIO()))
            with log:
                train(run, self.trainer, Checkpoints(Path(folder)), log, watch=lambda *_: ends.append(perf_counter()))
        spent = ends[-1] - ends[WARM - 1]
        found = self.steps * run.batch_size / spent
        self.steps = max(3, round(self.steps * self.job.seconds / spent))
        return found

    def alone(self) -> float:
        """See `Side`."""

        def step() -> int:
            self.trainer.step(self.views, 0.5)
            return self.job.batch_size

        self.trainer.encoder.train(), self.trainer.heads.train()
        return rate(step, self.job.seconds)()


class Usual(Side):
    """What most people write: transforms in loader workers, fp32, channels first."""

    def __init__(self, job: Job) -> None:
        self.job, self.encoder = job, job.net()
        channels = list(self.encoder.layers.values())[-1].channels
        self.head = nn.Linear(channels, 4) if job.task == "rotation" else projection(self.encoder)
        self.optimizer = Optimization().build([ParameterGroup([*self.encoder.parameters(), *self.head.parameters()])])
        view: View = RotationViews(job.size) if job.task == "rotation" else TorchvisionViews(job.size)
        self.batches = Loaded(Pictures(job.pixels(), view), job.batch_size, job.workers)
        self.images = torch.rand(job.views, 3, job.size, job.size)
        self.about = f"fp32, channels first, {job.workers} loader workers"

    def whole(self) -> float:
        """See `Side`."""

        def step() -> int:
            loaded = self.batches.next()
            images = loaded if isinstance(loaded, Tensor) else torch.stack(loaded, 1)
            self.step(images.flatten(0, 1))
            return self.job.batch_size

        self.batches.start()
        for _ in range(WARM):
            step()
        found = rate(step, self.job.seconds)()
        self.batches.stop()
        return found

    def alone(self) -> float:
        """See `Side`."""

        def step() -> int:
            self.step(self.images)
            return self.job.batch_size

        return rate(step, self.job.seconds)()

    def step(self, images: Tensor) -> float:
        """Move the weights once: (n, 3, S, S), the angles or views of an image in a row. Returns the loss."""
        answers = self.head(self.encoder(images))
        if self.job.task == "rotation":
            loss = F.cross_entropy(answers, torch.arange(4).repeat(len(images) // 4))
        else:
            loss = contrastive(answers)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.item()


class RotationViews:
    """The usual way to rotate: crop and mirror one image, then turn it four times.

    Args:
        size: side of the views in pixels.
    """

    def __init__(self, size: int) -> None:
        self.transform = v2.Compose(
            [
                v2.RandomResizedCrop(size, Rotation().scale),
                v2.RandomHorizontalFlip(),
                v2.ToImage(),
                v2.ToDtype(torch.float32, scale=True),
            ]
        )

    def __call__(self, image: Image.Image) -> Tensor:
        """One image to its four turns, (4, 3, size, size) in [0, 1]."""
        upright = self.transform(image)
        return torch.stack([torch.rot90(upright, turns, (1, 2)) for turns in range(4)])
