"""The interface of probes: classifiers on the frozen features of every layer.

Some of the training images are held out. Hyperparameters and the best layer are chosen by the accuracy on these (mAP if
images may have several classes), never by that on test images.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.contracts import Encoder, Source
from selftaught.errors import UserError
from selftaught.evaluation.features import DIMENSIONS, Viewing
from selftaught.evaluation.ranking import average_precision

HELD_OUT = 5000
"""Maximum number of held-out images, enough to distinguish accuracies that differ by 0.5 percentage points."""

OnProgress = Callable[[str, int], None]
"""Called with the current phase and the number of images processed since the last call."""


@dataclass(frozen=True)
class ProbeResult:
    """Class scores of a classifier on one layer. Metrics are computed from them, see `metrics.py`."""

    scores: Tensor
    """(n, k) float32 on the CPU: one score per class for each labeled test image, in the order of the source. The class
    with the largest one is predicted; where images may have several classes, images are ranked by each score."""
    labels: Tensor
    """(n,) int64, or (n, k) int8 of 0 and 1 where images may have several classes, on the CPU."""
    held_scores: Tensor
    """(m, k) on the CPU: scores of the labeled held-out images by the classifier that was chosen; the same images in
    the same order at every layer of a seed."""
    held_labels: Tensor
    """(m,) or (m, k), as `labels`."""
    dimensions: int
    """Size of the feature that is classified."""
    penalty: float | None = None
    """Regularization strength chosen by the probe (the median over classes if it differs by class); None if it has
    none."""

    @property
    def held_out(self) -> float:
        """Accuracy or mAP on the held-out training images, 0 to 1."""
        return criterion(self.held_scores, self.held_labels)

    @property
    def held_correct(self) -> Tensor:
        """(m,) bool: whether each held-out image with one class is classified correctly."""
        return self.held_scores.argmax(1) == self.held_labels

    @property
    def correct(self) -> Tensor:
        """(n,) bool: whether each test image is classified correctly."""
        return self.scores.argmax(1) == self.labels

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy on the test images, 0 to 1."""
        return float(self.correct.double().mean())


class Probe(ABC):
    """Base class. Subclasses are frozen dataclasses of hyperparameters, whose repr is part of cache keys."""

    dimensions: ClassVar[int] = DIMENSIONS
    """Default maximum size of pooled features."""
    deterministic: ClassVar[bool] = False
    """Whether the test accuracy does not depend on the seed."""
    includes_embedding: ClassVar[bool] = False
    """Whether the embedding that the pretext loss compares is classified as well, see `evaluation.embedding`."""
    zoom: ClassVar[float] = 1.0
    """Ratio of the side of stored images to that of views, if the images are large enough."""
    epochs: int = 1
    """Number of passes over the training images."""

    @abstractmethod
    def evaluate(
        self, encoder: Encoder, train: Source, test: Source, viewing: Viewing, seed: int, on_progress: OnProgress
    ) -> dict[str, ProbeResult]:
        """Probe every layer.

        Args:
            encoder: on the device; left in eval mode, its weights unchanged.
            train: labeled images; the `held_out` ones are used for model selection only.
            test: labeled images of the same classes, used once, after model selection.
            viewing: preprocessing and pooling.
            seed: random seed, also of the choice of held-out images.
            on_progress: see `OnProgress`.

        Returns:
            Layer -> result, in the encoder's order.

        Raises:
            UserError: labels are missing or too few.
        """

    def assist(self, encoder: Encoder, train: Source, test: Source, viewing: Viewing, seed: int) -> None:
        """What the other processes do while the first one calls `evaluate`: by default the same.

        They compute their part of the features, and take part in everything that needs all processes.
        """
        self.evaluate(encoder, train, test, viewing, seed, lambda phase, images: None)

    def note(self, side: int, size: int) -> str:
        """A note on the views for the caption of the table, or empty.

        Args:
            side: side of the stored training images in pixels.
            size: side of the views in pixels.
        """
        return ""

    def window(self, side: int, size: int) -> float:
        """Side of a test view as a fraction of the image; 1 is the whole image. Arguments as for `note`."""
        return 1.0


def indicators(labels: Tensor, classes: int) -> Tensor:
    """(n, k) bool: which classes each image has, from (n,) class numbers or (n, k) of 0 and 1."""
    return F.one_hot(labels, classes).bool() if labels.ndim == 1 else labels > 0


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of images with one class, (n,), or the binary ones of several classes, (n, k), added up.

    Either way the gradient of a logit is its probability minus its target, divided by n.
    """
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels)
    return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="sum") / len(labels)


def criterion(scores: Tensor, labels: Tensor) -> float:
    """What hyperparameters are chosen by: accuracy, or mAP where images may have several classes.

    Args:
        scores: (n, k).
        labels: (n,) int64 or (n, k) of 0 and 1.

    Raises:
        UserError: no image has any class.
    """
    if labels.ndim == 1:
        return float((scores.argmax(1) == labels).double().mean())
    value = float(average_precision(scores, labels > 0).nanmean())
    if math.isnan(value):
        raise UserError(
            f"none of the {len(labels):,} held-out training images has any of the classes: label more images, or raise "
            "--limit."
        )
    return value


def held_out(count: int, seed: int) -> Tensor:
    """Mask of the held-out training images, (count,) bool: a tenth of them, at most `HELD_OUT`."""
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[: min(HELD_OUT, -(-count // 10))]
    return torch.zeros(count, dtype=torch.bool).index_fill_(0, chosen, True)


def require_training_images(training: int, held: int, train: Source) -> None:
    """Raise an error unless there are labels both among the held-out images and among the others.

    Args:
        training: number of labeled images to train on.
        held: number of labeled held-out images.
        train: the source, for the message.

    Raises:
        UserError: one of the two numbers is 0.
    """
    if not training or not held:
        raise UserError(
            f"a probe or evaluation needs labeled images to train on and others to hold out, but {train.name} has "
            f"{training + held} in all: label more, or raise --limit."
        )


def require_test_images(count: int, test: Source) -> int:
    """Return the number of labeled test images.

    Raises:
        UserError: it is 0.
    """
    if not count:
        raise UserError(
            f"a probe or evaluation needs labeled test images, but {test.name} has none: label some images."
        )
    return count


def transposed_product(features: Tensor, values: Tensor) -> Tensor:
    """X' V of features (n, d) and values (n, k): (d, k).

    Written as (V' X)', because X' V is about ten times as slow for k from 2 to 10 (oneMKL on AMD EPYC). For larger k
    the two differ by up to a third, in either direction.
    """
    return (values.T @ features).T
