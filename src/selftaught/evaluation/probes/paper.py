"""The `paper` probe: batch normalization and a linear layer on every layer's feature, all trained together by SGD.

Zhang et al. 2016 (section 4.1 and its released prototxt): batch normalization without scale and shift, then one inner
product; all heads at once on random crops and mirrored images (224 of 256 pixels); tested on the center crop. Schedule
of Goyal et al. 2019 as in VISSL: 28 epochs, rate 0.01 per 256 images, a tenth after 8, 16 and 24, Nesterov momentum
0.9, weight decay 5e-4.
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
    """Linear heads by SGD on augmented images; `batch_size` of the viewing is that of SGD."""

    zoom: ClassVar[float] = 8 / 7
    """Images are stored at 256 pixels for views of 224."""
    epochs: int = 28
    learning_rate: float = 0.01
    """Per 256 images of a batch."""
    milestones: tuple[float, ...] = (8 / 28, 16 / 28, 24 / 28)
    """Fractions of the steps after which the learning rate is divided by ten."""
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def evaluate(
        self, encoder: Encoder, train: Source, test: Source, viewing: Viewing, seed: int, on_progress: OnProgress
    ) -> dict[str, ProbeResult]:
        """See `Probe`; the seed is also that of the heads, the order of the images and their crops."""
        generator = torch.Generator().manual_seed(seed)
        classes = len(require_labels(train))
        held = held_out(len(train), seed)
        encoder.eval()
        first = _features(encoder, train.batch(torch.arange(1), viewing.device), viewing, identity(1))
        sizes = {name: x.shape[1] for name, x in first}
        heads = nn.ModuleList(_head(size, classes, generator) for size in sizes.values()).to(viewing.device)
        learned = self._train(heads, encoder, train, (~held).nonzero().flatten(), viewing, generator, on_progress)
        choosing = _score(heads, encoder, train, held.nonzero().flatten(), viewing, on_progress)
        require_training_images(learned, choosing.shape[1], train)
        correct = _score(heads, encoder, test, torch.arange(len(test)), viewing, on_progress)
        require_test_images(correct.shape[1], test)
        accuracies = choosing.double().mean(1).tolist()
        return {
            name: ProbeResult(row, accuracy, size)
            for (name, size), row, accuracy in zip(sizes.items(), correct, accuracies, strict=True)
        }

    def rate(self, done: float, batch_size: int) -> float:
        """The learning rate when this fraction of the steps (0 to 1) is done."""
        decays = sum(done >= milestone for milestone in self.milestones)
        return float(self.learning_rate * batch_size / 256 * 0.1**decays)

    def note(self, side: int, size: int) -> str:
        """See `Probe`."""
        if side > size:
            return f"Training views are random {size}-pixel crops of {side}-pixel images, test views the center crop."
        return (
            f"The images ({side} pixels) are not larger than the views ({size} pixels), so training views are shifted "
            "by up to 1/8 of their side (mirrored at the border) instead of cropped."
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
        """Train the heads on the images at `chosen`; returns how many of them have labels."""
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
                known = batch.targets["label"] >= 0
                labeled += int(known.sum())
                if known.sum() > 1:
                    seen = _features(encoder, batch, viewing, crop)
                    losses = [
                        F.cross_entropy(head(x[known]), batch.targets["label"][known])
                        for head, (_, x) in zip(heads, seen, strict=True)
                    ]
                    done = (epoch + step / len(batches)) / self.epochs
                    optimizer.param_groups[0]["lr"] = self.rate(done, viewing.batch_size)
                    optimizer.zero_grad()
                    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                on_progress(f"epoch {epoch + 1} of {self.epochs}", len(batch))
        return labeled


def shifted_crop(count: int, side: int, size: int, generator: torch.Generator) -> Tensor:
    """Windows of `size` out of `side` pixels anywhere in the image, half of them mirrored: (count, 3, 3).

    Where the image is no larger than the view, it is shifted by up to an eighth of its side, as by the padding of 4
    pixels that is usual at 32 (mirrored at the border, not black).
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
    """Whether each head classifies the center crop of each labeled image at `chosen` correctly: (heads, n) bool."""
    heads.eval()
    window = min(1.0, viewing.size / source.side)
    correct = []
    for indices in torch.split(chosen, viewing.batch_size):
        batch = source.batch(indices, viewing.device)
        labels = batch.targets["label"]
        seen = _features(encoder, batch, viewing, affine(width=window, height=window, count=len(batch)))
        rows = [head(x).argmax(1) == labels for head, (_, x) in zip(heads, seen, strict=True)]
        correct.append(torch.stack(rows)[:, labels >= 0].cpu())
        on_progress("testing", len(batch))
    return torch.cat(correct, 1) if correct else torch.zeros(len(heads), 0, dtype=torch.bool)


@torch.no_grad()
def _features(encoder: Encoder, batch: Batch, viewing: Viewing, matrix: Tensor) -> list[tuple[str, Tensor]]:
    """Layer and pooled feature, in order."""
    seen = encoder.features(encoder.preprocess(batch.warp(matrix, viewing.size)))
    return [(name, pool(x, viewing.dimensions, viewing.pooling)) for name, x in seen.items()]


def _head(size: int, classes: int, generator: torch.Generator) -> nn.Module:
    """Batch normalization without scale and shift, one linear layer; initial weights N(0, 0.01), no bias."""
    linear = nn.Linear(size, classes, device="meta").to_empty(device="cpu")  # draws nothing from the global generator
    with torch.no_grad():
        linear.weight.normal_(0, 0.01, generator=generator)
        linear.bias.zero_()
    # The encoder is frozen, so its features' statistics are constant: a plain average (momentum None) converges fast.
    return nn.Sequential(nn.BatchNorm1d(size, affine=False, momentum=None), linear)
