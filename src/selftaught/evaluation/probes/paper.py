"""The `paper` probe: linear classifiers on the features of all layers, trained together by SGD.

After Zhang et al. 2016 (section 4.1 and the released prototxt): batch normalization without scale and shift, then a
linear layer; all heads are trained on the same random crops and horizontal flips (224 of 256 pixels) and tested on the
center crop. Schedule of Goyal et al. 2019 as in VISSL: 28 epochs, learning rate 0.01 per 256 images, divided by ten
after epochs 8, 16 and 24, Nesterov momentum 0.9, weight decay 5e-4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from selftaught.augment.warp import affine, bernoulli, identity, uniform
from selftaught.contracts import Batch, Encoder, Source
from selftaught.evaluation.features import Viewing, pool, require_labels
from selftaught.evaluation.probes.base import (
    OnProgress,
    Probe,
    ProbeResult,
    held_out,
    require_test_images,
    require_training_images,
)


@dataclass(frozen=True)
class PaperProbe(Probe):
    """Linear heads trained by SGD on augmented images, with the batch size of `viewing`."""

    zoom: ClassVar[float] = 8 / 7
    """Views of 224 pixels are cropped from images stored at 256."""
    epochs: int = 28
    learning_rate: float = 0.01
    """Learning rate per 256 images of a batch."""
    milestones: tuple[float, ...] = (8 / 28, 16 / 28, 24 / 28)
    """Fractions of the steps after which the learning rate is divided by ten."""
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def evaluate(
        self, encoder: Encoder, train: Source, test: Source, viewing: Viewing, seed: int, on_progress: OnProgress
    ) -> dict[str, ProbeResult]:
        """See `Probe`; the seed also determines the initial heads, the order of the images and their crops."""
        generator = torch.Generator().manual_seed(seed)
        classes = len(require_labels(train))
        held = held_out(len(train), seed)
        encoder.eval()
        first = _features(encoder, train.batch(torch.arange(1), viewing.device), viewing, identity(1))
        sizes = {name: x.shape[1] for name, x in first}
        heads = nn.ModuleList(_head(size, classes, generator) for size in sizes.values()).to(viewing.device)
        labeled = self._train(heads, encoder, train, (~held).nonzero().flatten(), viewing, generator, on_progress)
        held_correct = _score(heads, encoder, train, held.nonzero().flatten(), viewing, on_progress)
        require_training_images(labeled, held_correct.shape[1], train)
        correct = _score(heads, encoder, test, torch.arange(len(test)), viewing, on_progress)
        require_test_images(correct.shape[1], test)
        accuracies = held_correct.double().mean(1).tolist()
        return {
            name: ProbeResult(row, accuracy, size)
            for (name, size), row, accuracy in zip(sizes.items(), correct, accuracies, strict=True)
        }

    def rate(self, done: float, batch_size: int) -> float:
        """The learning rate after a fraction `done` of the steps, 0 to 1."""
        decays = sum(done >= milestone for milestone in self.milestones)
        return float(self.learning_rate * batch_size / 256 * 0.1**decays)

    def note(self, side: int, size: int) -> str:
        """See `Probe`."""
        if side > size:
            return f"Training views are random {size}-pixel crops of {side}-pixel images, test views the center crop."
        return (
            f"The images ({side} pixels) are not larger than the views ({size} pixels), so training views are "
            "not cropped but shifted by up to 1/8 of their side (reflected at the border)."
        )

    def window(self, side: int, size: int) -> float:
        """See `Probe`: the center crop."""
        return min(1.0, size / side)

    def _train(
        self,
        heads: nn.ModuleList,
        encoder: Encoder,
        train: Source,
        chosen: Tensor,
        viewing: Viewing,
        generator: torch.Generator,
        on_progress: OnProgress,
    ) -> int:
        """Train the heads on the images at indices `chosen`; return how many of them have labels."""
        optimizer = torch.optim.SGD(
            heads.parameters(), momentum=self.momentum, nesterov=True, weight_decay=self.weight_decay
        )
        heads.train()
        labeled = 0
        for epoch in range(self.epochs):
            labeled = 0
            batches = _batches(chosen, viewing.batch_size, generator)
            for step, indices in enumerate(batches):
                batch = train.batch(indices, viewing.device)
                crop = shifted_crop(len(batch), train.side, viewing.size, generator)
                has_label = batch.targets["label"] >= 0
                labeled += int(has_label.sum())
                if has_label.sum() > 1:
                    features = _features(encoder, batch, viewing, crop)
                    losses = [
                        F.cross_entropy(head(x[has_label]), batch.targets["label"][has_label])
                        for head, (_, x) in zip(heads, features, strict=True)
                    ]
                    done = (epoch + step / len(batches)) / self.epochs
                    optimizer.param_groups[0]["lr"] = self.rate(done, viewing.batch_size)
                    optimizer.zero_grad()
                    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                on_progress(f"epoch {epoch + 1} of {self.epochs}", len(batch))
        return labeled


def shifted_crop(count: int, side: int, size: int, generator: torch.Generator) -> Tensor:
    """Matrices of random crops of `size` of `side` pixels, half of them flipped horizontally: (count, 3, 3).

    If the image is not larger than the view, it is shifted by up to an eighth of its side, like the usual padding of 4
    pixels at 32 pixels, but reflected at the border instead of black.
    """
    window = min(1.0, size / side)
    reach = 1 - window if window < 1 else 0.25
    x, y = uniform(-reach, reach, count, generator), uniform(-reach, reach, count, generator)
    return affine(x=x, y=y, width=window, height=window, flip=bernoulli(0.5, count, generator), count=count)


def _batches(chosen: Tensor, size: int, generator: torch.Generator) -> Sequence[Tensor]:
    """The images of an epoch in random order. An incomplete last batch is dropped, unless it is the only one."""
    batches = torch.split(chosen[torch.randperm(len(chosen), generator=generator)], size)
    return batches[: max(1, len(chosen) // size)]


@torch.inference_mode()
def _score(
    heads: nn.ModuleList, encoder: Encoder, source: Source, chosen: Tensor, viewing: Viewing, on_progress: OnProgress
) -> Tensor:
    """Whether each head classifies the center crop of each labeled image of `chosen` correctly: (heads, n) bool."""
    heads.eval()
    window = min(1.0, viewing.size / source.side)
    correct = []
    for indices in torch.split(chosen, viewing.batch_size):
        batch = source.batch(indices, viewing.device)
        labels = batch.targets["label"]
        features = _features(encoder, batch, viewing, affine(width=window, height=window, count=len(batch)))
        rows = [head(x).argmax(1) == labels for head, (_, x) in zip(heads, features, strict=True)]
        correct.append(torch.stack(rows)[:, labels >= 0].cpu())
        on_progress("testing", len(batch))
    return torch.cat(correct, 1) if correct else torch.zeros(len(heads), 0, dtype=torch.bool)


@torch.no_grad()
def _features(encoder: Encoder, batch: Batch, viewing: Viewing, matrix: Tensor) -> list[tuple[str, Tensor]]:
    """Name and pooled feature of each layer, in order."""
    outputs = encoder.features(encoder.preprocess(batch.warp(matrix, viewing.size)))
    return [(name, pool(x, viewing.dimensions, viewing.pooling)) for name, x in outputs.items()]


def _head(size: int, classes: int, generator: torch.Generator) -> nn.Module:
    """Batch normalization without scale and shift, one linear layer; initial weights N(0, 0.01), no bias."""
    linear = nn.Linear(size, classes, device="meta").to_empty(device="cpu")  # leaves the global generator unchanged
    with torch.no_grad():
        linear.weight.normal_(0, 0.01, generator=generator)
        linear.bias.zero_()
    # The encoder is frozen, so the feature statistics are constant and a cumulative average (momentum None) suffices.
    return nn.Sequential(nn.BatchNorm1d(size, affine=False, momentum=None), linear)
