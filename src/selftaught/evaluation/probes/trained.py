"""The part that `sgd`, `mlp` and `conv` share: heads on the features of all layers, trained together by SGD.

All heads are trained on the same random crops and horizontal flips, so one forward pass of the encoder serves all of
them, and tested on the center crop or on ten crops.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn

from selftaught.augment.warp import affine, bernoulli, identity, uniform
from selftaught.contracts import Encoder, Source
from selftaught.errors import require_ranges
from selftaught.evaluation.features import Viewing, is_labeled, labels_of, require_labels
from selftaught.evaluation.probes.base import (
    OnProgress,
    Probe,
    ProbeResult,
    classification_loss,
    held_out,
    require_test_images,
    require_training_images,
)
from selftaught.limits import COEFFICIENT, FRACTION, LEARNING_RATE, Range
from selftaught.modules.processes import join_parts, processes

PASSES = Range(1, 10_000)


@dataclass(frozen=True)
class TrainedProbe(Probe):
    """Base class of probes trained by SGD on augmented images, with the batch size of `viewing`."""

    zoom: ClassVar[float] = 8 / 7
    """Views of 224 pixels are cropped from images stored at 256."""
    epochs: int = 28
    """Number of passes over the training images."""
    learning_rate: float = 0.01
    """Learning rate per 256 images of a batch."""
    milestones: tuple[float, ...] = ()
    """Fractions of the steps after which the learning rate is multiplied by gamma."""
    gamma: float = 0.1
    """Factor on the learning rate at each milestone."""
    momentum: float = 0.9
    """Nesterov momentum."""
    weight_decay: float = 5e-4
    """Weight decay."""
    ten_crop: bool = False
    """Test on the center and the four corners, each also mirrored, and average the probabilities."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        require_ranges(self, epochs=PASSES, learning_rate=LEARNING_RATE, milestones=FRACTION, gamma=FRACTION)
        require_ranges(self, momentum=FRACTION, weight_decay=COEFFICIENT)

    @abstractmethod
    def inputs(self, feature: Tensor, viewing: Viewing) -> Tensor:
        """The input of the head from a feature of the encoder, see `Encoder.features`; first axis B."""

    @abstractmethod
    def head(self, shape: torch.Size, classes: int, generator: torch.Generator) -> nn.Module:
        """A new head on the CPU for inputs of `shape` (without the first axis), its weights drawn from `generator`."""

    def evaluate(
        self, encoder: Encoder, train: Source, test: Source, viewing: Viewing, seed: int, on_progress: OnProgress
    ) -> dict[str, ProbeResult]:
        """See `Probe`; the seed also determines the initial heads, the order of the images and their crops."""
        generator = torch.Generator().manual_seed(seed)
        classes = len(require_labels(train))
        held = held_out(len(train), seed)
        encoder.eval()
        first, _ = self._features(encoder, train, torch.arange(1), viewing, [identity(1)])
        shapes = {name: x.shape[1:] for name, x in first[0].items()}
        heads = nn.ModuleList(self.head(shape, classes, generator) for shape in shapes.values()).to(viewing.device)
        labeled = self._train(heads, encoder, train, (~held).nonzero().flatten(), viewing, generator, on_progress)
        held_scores, held_labels = self._score(heads, encoder, train, held.nonzero().flatten(), viewing, on_progress)
        require_training_images(labeled, len(held_labels), train)
        scores, labels = self._score(heads, encoder, test, torch.arange(len(test)), viewing, on_progress)
        require_test_images(len(labels), test)
        return {
            name: ProbeResult(rows, labels, held_rows, held_labels, shape.numel())
            for (name, shape), rows, held_rows in zip(shapes.items(), scores, held_scores, strict=True)
        }

    def rate(self, done: float, batch_size: int) -> float:
        """The learning rate after a fraction `done` of the steps, 0 to 1."""
        decays = sum(done >= milestone for milestone in self.milestones)
        return float(self.learning_rate * batch_size / 256 * self.gamma**decays)

    def note(self, side: int, size: int) -> str:
        """See `Probe`."""
        tested = "the average of ten crops" if self.ten_crop else "the center crop"
        if side > size:
            return f"Training views are random {size}-pixel crops of {side}-pixel images, test views {tested}."
        mirrored = " Test scores are averaged over each image and its mirror image." if self.ten_crop else ""
        return (
            f"The images ({side} pixels) are not larger than the views ({size} pixels), so training views are "
            f"not cropped but shifted by up to 1/8 of their side (reflected at the border).{mirrored}"
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
            heads.parameters(), momentum=self.momentum, nesterov=self.momentum > 0, weight_decay=self.weight_decay
        )
        heads.train()
        labeled = 0
        for epoch in range(self.epochs):
            labeled = 0
            batches = _batches(chosen, viewing.batch_size, generator)
            for step, indices in enumerate(batches):
                crop = shifted_crop(len(indices), train.side, viewing.size, generator)
                (features,), labels = self._features(encoder, train, indices, viewing, [crop])
                has_label = is_labeled(labels)
                labeled += int(has_label.sum())
                if has_label.sum() > 1:
                    losses = [
                        classification_loss(head(x[has_label]), labels[has_label])
                        for head, x in zip(heads, features.values(), strict=True)
                    ]
                    done = (epoch + step / len(batches)) / self.epochs
                    optimizer.param_groups[0]["lr"] = self.rate(done, viewing.batch_size)
                    optimizer.zero_grad()
                    torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
                    optimizer.step()
                on_progress(f"epoch {epoch + 1} of {self.epochs}", len(indices))
        return labeled

    @torch.inference_mode()
    def _score(
        self,
        heads: nn.ModuleList,
        encoder: Encoder,
        source: Source,
        chosen: Tensor,
        viewing: Viewing,
        on_progress: OnProgress,
    ) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the labeled images of `chosen`, (heads, n, k), and their labels, on the CPU."""
        heads.eval()
        window = min(1.0, viewing.size / source.side)
        scores: list[Tensor] = []
        labels: list[Tensor] = []
        for indices in torch.split(chosen, viewing.batch_size):
            crops = eval_crops(len(indices), window, self.ten_crop)
            features, found = self._features(encoder, source, indices, viewing, crops)
            as_probabilities = torch.sigmoid if found.ndim == 2 else partial(torch.softmax, dim=1)
            views = [
                torch.stack([as_probabilities(head(x)) for head, x in zip(heads, own.values(), strict=True)])
                for own in features
            ]
            mean = torch.stack(views).mean(0)
            has_label = is_labeled(found)
            # The logarithm keeps the order and separates probabilities near 0.
            scores.append(mean[:, has_label].clamp_min(1e-38).log().cpu())
            labels.append(found[has_label].cpu())
            on_progress("testing", len(indices))
        return torch.cat(scores, 1), torch.cat(labels)

    @torch.no_grad()
    def _features(
        self, encoder: Encoder, source: Source, indices: Tensor, viewing: Viewing, matrices: Sequence[Tensor]
    ) -> tuple[list[dict[str, Tensor]], Tensor]:
        """Inputs of the heads by layer, for each of the views that matrices (n, 3, 3) give, and the labels.

        Several processes compute a part of the images each.
        """
        those = processes()
        shared = those.count > 1 and len(indices) >= those.count
        parts = torch.arange(len(indices)).tensor_split(those.count if shared else 1)
        own, sizes = parts[those.rank if shared else 0], [len(part) for part in parts]
        batch = source.batch(indices[own], viewing.device)

        def whole(rows: Tensor) -> Tensor:
            return join_parts(rows, sizes) if shared else rows

        outputs = []
        for matrix in matrices:
            features = encoder.features(encoder.preprocess(batch.warp(matrix[own], viewing.size)))
            outputs.append({name: whole(self.inputs(x, viewing)) for name, x in features.items()})
        return outputs, whole(labels_of(batch))


def shifted_crop(count: int, side: int, size: int, generator: torch.Generator) -> Tensor:
    """Matrices of random crops of `size` of `side` pixels, half of them flipped horizontally: (count, 3, 3).

    If the image is not larger than the view, it is shifted by up to an eighth of its side, like the usual padding of 4
    pixels at 32 pixels, but reflected at the border instead of black.
    """
    window = min(1.0, size / side)
    reach = 1 - window if window < 1 else 0.25
    x, y = uniform(-reach, reach, count, generator), uniform(-reach, reach, count, generator)
    return affine(x=x, y=y, width=window, height=window, flip=bernoulli(0.5, count, generator), count=count)


def eval_crops(count: int, window: float, ten: bool) -> list[Tensor]:
    """Matrices of the test views of `count` images, (count, 3, 3) each.

    Args:
        count: number of images.
        window: side of a crop as a fraction of the image; whole images have no corners, so ten crops are then two.
        ten: whether to take the center and the four corners, each also mirrored, or the center only.
    """
    if not ten:
        return [affine(width=window, height=window, count=count)]
    reach = 1 - window
    corners = [(x, y) for x in (-reach, reach) for y in (-reach, reach)] if reach else []
    return [
        affine(x=x, y=y, width=window, height=window, flip=torch.full((count,), mirrored), count=count)
        for x, y in [(0.0, 0.0), *corners]
        for mirrored in (False, True)
    ]


def _batches(chosen: Tensor, size: int, generator: torch.Generator) -> Sequence[Tensor]:
    """The images of an epoch in random order. An incomplete last batch is dropped, unless it is the only one."""
    batches = torch.split(chosen[torch.randperm(len(chosen), generator=generator)], size)
    return batches[: max(1, len(chosen) // size)]
