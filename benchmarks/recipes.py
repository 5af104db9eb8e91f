"""The same training in two ways: ours and the usual recipe, with the same network, images, batch, loss and optimizer.

Ours is the library's own `train` with the settings that it chooses on this machine: precision by measurement,
channels-last format, freed memory kept by the process. The usual recipe is fp32, channels first, with transforms per
image in loader workers. `keep_freed_memory` changes a process, so each way runs in its own (see `steps`).
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

from benchmarks.images import LoaderBatches, TransformedImages, View, noise, stored
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
WARMUP = 2
"""Steps before timing starts, in each round."""


@dataclass(frozen=True)
class Job:
    """Task, encoder and sizes of a training."""

    task: Literal["rotation", "two views"]
    encoder: str
    size: int
    """Side of the views in pixels; images have 32, or a quarter more than views that are larger than 32."""
    views: int
    """Views per step: four per image for rotation, two for two views."""
    images: int
    workers: int
    threads: int | None
    seconds: float
    """Seconds per measurement; at least three steps."""

    @property
    def batch_size(self) -> int:
        """Images per step."""
        return self.views // (4 if self.task == "rotation" else 2)

    def pixels(self) -> np.ndarray:
        """(N, 3, S, S) uint8."""
        return noise(self.images, 32 if self.size <= 32 else self.size * 5 // 4)

    def make_encoder(self) -> Encoder:
        """The encoder, with the same initial weights for both ways."""
        torch.manual_seed(0)
        return make_encoder(self.encoder, size=self.size)


class Side(ABC):
    """One way to train."""

    about: str
    """Short description: precision, memory format, workers."""

    @abstractmethod
    def whole(self) -> float:
        """Images per second, end to end: from stored images to updated weights."""

    @abstractmethod
    def alone(self) -> float:
        """Images per second of the step alone, on views made beforehand."""


class Ours(Side):
    """The library's own loop."""

    def __init__(self, job: Job) -> None:
        keep_freed_memory()
        self.job, source = job, stored(job.pixels())
        task: Task = Rotation(size=job.size) if job.task == "rotation" else TwoViews(size=job.size)
        encoder = job.make_encoder()
        heads = task.heads(encoder, source)
        self.run = Pretraining(task, encoder, heads, source, Optimization(), 1, job.batch_size, 0)
        precision = choose_precision("auto", CPU)
        self.trainer = Trainer(make_fabric(CPU, precision), self.run)
        self.views = task.views(source.batch(torch.arange(job.batch_size), CPU), torch.Generator().manual_seed(0))
        self.about = f"{'fp32' if precision == '32' else precision}, channels last"
        self.steps = 3

    def whole(self) -> float:
        """See `Side`. Every step writes a log line, whereas a real run writes about 400 in total."""
        end_times: list[float] = []
        run = replace(self.run, steps=WARMUP + self.steps)
        with TemporaryDirectory() as folder:
            log = Log(Path(folder) / "log.jsonl", run.steps, run.batch_size, {}, 1, Console(file=StringIO()))
            with log:
                train(
                    run, self.trainer, Checkpoints(Path(folder)), log, watch=lambda *_: end_times.append(perf_counter())
                )
        seconds = end_times[-1] - end_times[WARMUP - 1]
        images_per_second = self.steps * run.batch_size / seconds
        self.steps = max(3, round(self.steps * self.job.seconds / seconds))
        return images_per_second

    def alone(self) -> float:
        """See `Side`."""

        def step() -> int:
            self.trainer.step(self.views, 0.5)
            return self.job.batch_size

        self.trainer.encoder.train(), self.trainer.heads.train()
        return rate(step, self.job.seconds)()


class Usual(Side):
    """The usual recipe: transforms in loader workers, fp32, channels first."""

    def __init__(self, job: Job) -> None:
        self.job, self.encoder = job, job.make_encoder()
        channels = list(self.encoder.layers.values())[-1].channels
        self.head = nn.Linear(channels, 4) if job.task == "rotation" else projection(self.encoder)
        self.optimizer = Optimization().build([ParameterGroup([*self.encoder.parameters(), *self.head.parameters()])])
        view: View = RotationViews(job.size) if job.task == "rotation" else TorchvisionViews(job.size)
        self.batches = LoaderBatches(TransformedImages(job.pixels(), view), job.batch_size, job.workers)
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
        for _ in range(WARMUP):
            step()
        images_per_second = rate(step, self.job.seconds)()
        self.batches.stop()
        return images_per_second

    def alone(self) -> float:
        """See `Side`."""

        def step() -> int:
            self.step(self.images)
            return self.job.batch_size

        return rate(step, self.job.seconds)()

    def step(self, images: Tensor) -> float:
        """Update the weights and return the loss; images (n, 3, S, S), the angles or views of an image in a row."""
        outputs = self.head(self.encoder(images))
        if self.job.task == "rotation":
            loss = F.cross_entropy(outputs, torch.arange(4).repeat(len(images) // 4))
        else:
            loss = contrastive(outputs)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.item()


class RotationViews:
    """The usual rotation transform: crop and flip an image, then rotate it by the four multiples of 90 degrees.

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
        """One image to its four rotations, (4, 3, size, size) in [0, 1]."""
        upright = self.transform(image)
        return torch.stack([torch.rot90(upright, quarter_turns, (1, 2)) for quarter_turns in range(4)])
