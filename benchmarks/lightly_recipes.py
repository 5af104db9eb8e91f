"""Train our encoder by a recipe of the `lightly` package, for some minutes, and save it as a run folder.

    python -m benchmarks.lightly_recipes --data cifar10 --recipe simclr --minutes 4 --out runs/lightly-simclr
    selftaught probe runs/lightly-simclr --data cifar10
    selftaught compare runs/lightly-simclr runs/simclr

Transforms, heads, losses, optimizers, learning rates, momenta and batch sizes are those of lightly's PyTorch examples
(https://docs.lightly.ai/self-supervised-learning/examples/models.html); of DINO, whose example has larger images, the
views are those of lightly's CIFAR-10 benchmark. Only three things differ: the encoder is ours instead of a ResNet-18,
so that the first layer of a head has as many inputs as the encoder has channels; the encoder itself normalizes images,
by the same constants; and there are as many loader workers as threads.

The minutes are wall time from the first batch that is requested, so that loading counts. Loader workers are processes
of their own: on a machine with more cores than `--threads`, start the command with `taskset -c 0` or the like.
Initial weights of the encoder are those of `selftaught pretrain` with the same seed.
"""

import argparse
import copy
import os
import random
import sys
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain, repeat
from math import isfinite
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

import selftaught
from benchmarks.images import TransformedImages, View
from selftaught.config.build import STORAGE_SCALE
from selftaught.contracts import Encoder
from selftaught.errors import UserError
from selftaught.training.randomness import seeded_rng

EPOCHS = 10
"""Epochs of the examples, by which they schedule momenta; a longer training keeps the values of the last one."""
LOG_SECONDS = 1.0
"""Least time between two lines of the log."""


class Recipe(nn.Module):
    """The parts of a recipe.

    Args:
        encoder: the encoder to train.
    """

    batch_size, learning_rate = 256, 0.06

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    @staticmethod
    @abstractmethod
    def transform(size: int) -> View:
        """The transform of an image to its views in [0, 1], `size` pixels wide."""

    def optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        """The optimizer of all parameters."""
        return torch.optim.SGD(self.parameters(), lr=learning_rate)

    @abstractmethod
    def loss(self, views: list[Tensor], epoch: int) -> Tensor:
        """The loss of the views, (B, 3, size, size) each."""

    def after_backward(self, epoch: int) -> None:
        """Change gradients before the optimizer's step."""


class SimCLR(Recipe):
    """SimCLR."""

    def __init__(self, encoder: Encoder) -> None:
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead

        super().__init__(encoder)
        self.projection = SimCLRProjectionHead(encoder.last.channels, 512, 128)
        self.criterion = NTXentLoss()

    @staticmethod
    def transform(size: int) -> View:
        """See `Recipe`."""
        from lightly.transforms import SimCLRTransform

        return SimCLRTransform(input_size=size, gaussian_blur=0.0, normalize=None)

    def loss(self, views: list[Tensor], epoch: int) -> Tensor:
        """See `Recipe`."""
        return self.criterion(*(self.projection(self.encoder(view)) for view in views))


class VICReg(Recipe):
    """VICReg."""

    def __init__(self, encoder: Encoder) -> None:
        from lightly.loss import VICRegLoss
        from lightly.models.modules.heads import VICRegProjectionHead

        super().__init__(encoder)
        self.projection = VICRegProjectionHead(encoder.last.channels, hidden_dim=2048, output_dim=2048, num_layers=2)
        self.criterion = VICRegLoss()

    @staticmethod
    def transform(size: int) -> View:
        """See `Recipe`."""
        from lightly.transforms import VICRegTransform

        return VICRegTransform(input_size=size, normalize=None)

    def loss(self, views: list[Tensor], epoch: int) -> Tensor:
        """See `Recipe`."""
        return self.criterion(*(self.projection(self.encoder(view)) for view in views))


class BYOL(Recipe):
    """BYOL."""

    def __init__(self, encoder: Encoder) -> None:
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules import BYOLPredictionHead, BYOLProjectionHead

        super().__init__(encoder)
        self.online = nn.Sequential(encoder, BYOLProjectionHead(encoder.last.channels, 1024, 256))
        self.prediction = BYOLPredictionHead(256, 1024, 256)
        self.target = copy.deepcopy(self.online).requires_grad_(False)
        self.criterion = NegativeCosineSimilarity()

    @staticmethod
    def transform(size: int) -> View:
        """See `Recipe`."""
        from lightly.transforms import BYOLTransform, BYOLView1Transform, BYOLView2Transform

        settings: dict[str, Any] = {"input_size": size, "gaussian_blur": 0.0, "normalize": None}
        return BYOLTransform(BYOLView1Transform(**settings), BYOLView2Transform(**settings))

    def loss(self, views: list[Tensor], epoch: int) -> Tensor:
        """See `Recipe`."""
        follow(self.online, self.target, epoch)
        predictions = [self.prediction(self.online(view)) for view in views]
        first, second = (self.target(view) for view in views)
        return 0.5 * (self.criterion(predictions[0], second) + self.criterion(predictions[1], first))


class DINO(Recipe):
    """DINO."""

    batch_size, learning_rate = 64, 0.001

    def __init__(self, encoder: Encoder) -> None:
        from lightly.loss import DINOLoss
        from lightly.models.modules import DINOProjectionHead

        super().__init__(encoder)
        self.head = DINOProjectionHead(encoder.last.channels, 512, 64, 2048, freeze_last_layer=1)
        teacher_head = DINOProjectionHead(encoder.last.channels, 512, 64, 2048)
        self.student = nn.Sequential(encoder, self.head)
        self.teacher = nn.Sequential(copy.deepcopy(encoder), teacher_head).requires_grad_(False)
        self.criterion = DINOLoss(output_dim=2048, warmup_teacher_temp_epochs=5)

    @staticmethod
    def transform(size: int) -> View:
        """See `Recipe`."""
        from lightly.transforms import DINOTransform

        return DINOTransform(
            global_crop_size=size, n_local_views=0, cj_strength=0.5, gaussian_blur=(0.0, 0.0, 0.0), normalize=None
        )

    def optimizer(self, learning_rate: float) -> torch.optim.Optimizer:
        """See `Recipe`."""
        return torch.optim.Adam(self.parameters(), lr=learning_rate)

    def loss(self, views: list[Tensor], epoch: int) -> Tensor:
        """See `Recipe`."""
        follow(self.student, self.teacher, epoch)
        teacher = [self.teacher(view) for view in views[:2]]
        return self.criterion(teacher, [self.student(view) for view in views], epoch=epoch)

    def after_backward(self, epoch: int) -> None:
        """Keep the last layer fixed in the first epoch."""
        self.head.cancel_last_layer_gradients(current_epoch=epoch)


RECIPES: Mapping[str, type[Recipe]] = {"simclr": SimCLR, "byol": BYOL, "vicreg": VICReg, "dino": DINO}


def follow(online: nn.Module, target: nn.Module, epoch: int) -> None:
    """Move the target's weights toward those of the online network."""
    from lightly.models.utils import update_momentum
    from lightly.utils.scheduler import cosine_schedule

    update_momentum(online, target, m=cosine_schedule(epoch, EPOCHS, 0.996, 1))


def train(recipe: Recipe, loader: DataLoader[Any], seconds: float, learning_rate: float) -> Iterator[dict[str, float]]:
    """Train for some seconds of wall time, at least one step, and yield the lines of the log.

    `loss` and `images_per_second` are means since the line before.

    Raises:
        UserError: the loss is not finite.
    """
    optimizer = recipe.optimizer(learning_rate)
    recipe.train()
    start = written = perf_counter()
    step, losses = 0, list[float]()
    for epoch in chain(range(EPOCHS), repeat(EPOCHS - 1)):
        for views in loader:
            loss = recipe.loss(views, epoch)
            loss.backward()  # type: ignore[no-untyped-call]
            recipe.after_backward(epoch)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
            now, step = perf_counter(), step + 1
            if not isfinite(losses[-1]):
                raise UserError(f"the loss became {losses[-1]} at step {step}: try a lower --learning-rate.")
            if now - written >= LOG_SECONDS or now - start >= seconds:
                images = len(losses) * recipe.batch_size
                yield {
                    "step": step,
                    "seconds": round(now - start, 2),
                    "images_per_second": round(images / (now - written), 1),
                    "loss": sum(losses) / len(losses),
                }
                written, losses = now, []
            if now - start >= seconds:
                return


def run(options: argparse.Namespace) -> selftaught.Run:
    """Train and save the encoder."""
    if find_spec("lightly") is None:
        raise UserError("lightly's recipes need the package lightly: pip install 'selftaught[bench]'.")
    if options.out.exists():
        raise UserError(f"--out expects a new folder, but {options.out} exists: give another --out.")
    if hasattr(os, "sched_getaffinity") and (cores := len(os.sched_getaffinity(0))) > options.threads:
        print(
            f"Warning: loader workers can use {cores} cores beside --threads {options.threads}; limit them by taskset.",
            file=sys.stderr,
        )
    torch.set_num_threads(options.threads)
    source = selftaught.open_source(options.data, side=round(STORAGE_SCALE * options.size))
    with seeded_rng(options.seed, "weights"):
        encoder = selftaught.make_encoder(options.encoder, size=options.size)
        encoder.fit(source)
    random.seed(options.seed), np.random.seed(options.seed), torch.manual_seed(options.seed)
    recipe = RECIPES[options.recipe](encoder)
    if len(source) < recipe.batch_size:
        raise UserError(f"{options.recipe} needs at least {recipe.batch_size} images, but {options.data} has fewer.")
    pixels = source.batch(torch.arange(len(source)), torch.device("cpu")).images.numpy()
    images = TransformedImages(pixels, recipe.transform(options.size))
    loader = DataLoader(images, recipe.batch_size, shuffle=True, drop_last=True, num_workers=options.threads)
    log, learning_rate = [], options.learning_rate or recipe.learning_rate
    for line in train(recipe, loader, 60 * options.minutes, learning_rate):
        log.append(line)
        print("step {step}, {seconds:.0f} s, {images_per_second:,.0f} images/s, loss {loss:.4f}".format(**line))
    method = f"{options.recipe} of lightly {version('lightly')}"
    chosen = {name: getattr(options, name) for name in ("seed", "minutes", "threads")}
    return selftaught.save_encoder(
        encoder.eval(), options.encoder, options.out, method=method, source=source, size=options.size,
        steps=int(log[-1]["step"]), seconds=log[-1]["seconds"], log=log,
        batch_size=recipe.batch_size, learning_rate=learning_rate, precision="32", **chosen,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, help="training images: a name or path")
    parser.add_argument("--recipe", choices=list(RECIPES), required=True, help="recipe of lightly")
    parser.add_argument("--out", type=Path, required=True, help="run folder, new")
    parser.add_argument("--minutes", type=float, default=4.0, help="minutes of wall time")
    parser.add_argument("--learning-rate", type=float, help="learning rate; default: that of the example")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch, and number of loader workers")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--encoder", default="convnet", help="encoder of this library")
    parser.add_argument("--size", type=int, default=32, help="side of the views in pixels")
    try:
        print(run(parser.parse_args(arguments)).path)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
