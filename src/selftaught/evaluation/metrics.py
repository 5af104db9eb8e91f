"""Metrics of a classifier of images with one class each, computed from its class scores on the test images.

Those of images with several classes are in `multilabel.py`.

Top-1 accuracy hides what happens in rare classes: with 74 % of one class, predicting it always is 74 % accurate.
Balanced accuracy and the area under the ROC curve do not reward that. Definitions are those of scikit-learn.

Letters: n test images, k classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selftaught.evaluation.intervals import Measured, paired_interval
from selftaught.evaluation.probes.base import ProbeResult
from selftaught.evaluation.ranking import roc_auc

UNBALANCED = 1.5
"""Classes are unbalanced if the most frequent one has more than this many times the test images of the rarest."""


class Metrics(ABC):
    """Counts from the scores of a probe on one layer, from which all metrics follow."""

    name: ClassVar[str]
    """The main metric, which chooses layers, in JSON."""
    resampled: ClassVar[bool] = False
    """See `Measured`."""
    dimensions: int
    """Size of the feature that is classified."""
    penalty: float | None
    """See `ProbeResult`."""

    @property
    @abstractmethod
    def value(self) -> float:
        """The main metric on the test images, 0 to 1."""

    @property
    @abstractmethod
    def held_out(self) -> float:
        """The main metric on the held-out training images, 0 to 1."""

    @property
    @abstractmethod
    def observations(self) -> NDArray[np.generic]:
        """What intervals are computed from, see `Measured.observations`, of one repetition."""

    @property
    @abstractmethod
    def held_images(self) -> int:
        """Number of held-out images."""

    @property
    @abstractmethod
    def held_observations(self) -> NDArray[np.generic]:
        """The same as `observations` on the held-out images."""

    @property
    @abstractmethod
    def per_class(self) -> tuple[float | None, ...]:
        """The main metric of each class; None for a class without test images."""

    @abstractmethod
    def numbers(self) -> dict[str, float]:
        """The other metrics that exist, by name."""

    @classmethod
    @abstractmethod
    def held_difference(cls, first: Sequence[Self], second: Sequence[Self]) -> tuple[float, float, float]:
        """Compare two layers on held-out images, which differ by seed.

        Returns:
            The metric of the first minus that of the second, its standard error paired by image, and the lower end of
            its 95 % interval.
        """


def measured(results: Sequence[Metrics]) -> Measured:
    """The main metric of several repetitions on the same test images."""
    values = np.array([result.value for result in results])
    return Measured(values, np.stack([result.observations for result in results]), results[0].resampled)


@dataclass(frozen=True)
class LayerMetrics(Metrics):
    """The metrics of images with one class each."""

    name = "accuracy"

    correct: Tensor
    """(n,) bool on the CPU: whether each labeled test image is classified correctly, in the order of the source."""
    held_correct: Tensor
    """(m,) bool on the CPU, see `ProbeResult`."""
    dimensions: int
    """Size of the feature that is classified."""
    penalty: float | None
    """See `ProbeResult`."""
    confusion: Tensor
    """(k, k) int64: number of test images by true class (row) and predicted class (column)."""
    top5: float | None
    """Fraction of the images whose class has one of the five largest scores; None for five classes or fewer."""
    roc_auc: float | None
    """Area under the ROC curve of each class against the rest, averaged; None if only one class has test images."""

    @property
    def value(self) -> float:
        """See `Metrics`."""
        return self.accuracy

    @property
    def observations(self) -> NDArray[np.generic]:
        """See `Metrics`: whether each image is classified correctly."""
        correct: NDArray[np.bool_] = self.correct.numpy()
        return correct

    @property
    def held_images(self) -> int:
        """See `Metrics`."""
        return len(self.held_correct)

    @property
    def held_observations(self) -> NDArray[np.generic]:
        """See `Metrics`."""
        correct: NDArray[np.bool_] = self.held_correct.numpy()
        return correct

    @classmethod
    def held_difference(cls, first: Sequence[Self], second: Sequence[Self]) -> tuple[float, float, float]:
        """See `Metrics`; the differences of all seeds are pooled.

        The held-out images of two seeds are drawn independently, a tenth of the training images each, so few are in
        both.
        """
        ours, theirs = (torch.cat([result.held_correct for result in side]).double() for side in (first, second))
        difference = ours - theirs
        low, _ = paired_interval(ours[None], theirs[None])
        return float(difference.mean()), float(difference.std(correction=0)) / len(difference) ** 0.5, low

    @property
    def held_out(self) -> float:
        """Accuracy on the held-out training images, 0 to 1."""
        return float(self.held_correct.double().mean())

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy on the test images, 0 to 1."""
        return float(self.correct.double().mean())

    @property
    def balanced_accuracy(self) -> float:
        """Mean of the accuracies of the classes that have test images."""
        accuracies = [value for value in self.per_class if value is not None]
        return sum(accuracies) / len(accuracies)

    @property
    def macro_f1(self) -> float:
        """Mean F1 score of the classes that have test images or are predicted."""
        both = (self.confusion.sum(0) + self.confusion.sum(1)).double()
        return float((2 * self.confusion.diagonal() / both)[both > 0].mean())

    @property
    def per_class(self) -> tuple[float | None, ...]:
        """Accuracy on the test images of each class; None for a class without any."""
        totals = self.confusion.sum(1).tolist()
        hits = self.confusion.diagonal().tolist()
        return tuple(hit / total if total else None for hit, total in zip(hits, totals, strict=True))

    def numbers(self) -> dict[str, float]:
        """The metrics other than top-1 accuracy that exist, by name."""
        metrics = {
            "top5": self.top5,
            "balanced_accuracy": self.balanced_accuracy,
            "macro_f1": self.macro_f1,
            "roc_auc": self.roc_auc,
        }
        return {name: value for name, value in metrics.items() if value is not None}


def measure(result: ProbeResult) -> LayerMetrics:
    """Reduce the scores of a probe, which may be large, to what metrics need."""
    scores, labels = result.scores, result.labels
    return LayerMetrics(
        correct=result.correct,
        held_correct=result.held_correct,
        dimensions=result.dimensions,
        penalty=result.penalty,
        confusion=confusion_matrix(scores.argmax(1), labels, scores.shape[1]),
        top5=top_k_accuracy(scores, labels, 5) if scores.shape[1] > 5 else None,
        roc_auc=mean_area(scores, labels),
    )


def confusion_matrix(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """(k, k) int64: number of images by true class (row) and predicted class (column); both arguments (n,) int64."""
    return (labels * classes + predicted).bincount(minlength=classes**2).view(classes, classes)


def top_k_accuracy(scores: Tensor, labels: Tensor, k: int) -> float:
    """Fraction of the images whose class has one of the `k` largest scores: (n, classes), (n,) -> 0 to 1."""
    return float((scores.topk(k).indices == labels[:, None]).any(1).double().mean())


def mean_area(scores: Tensor, labels: Tensor) -> float | None:
    """Area under the ROC curve of each class against the rest, averaged over the classes that have test images.

    Args:
        scores: (n, k).
        labels: (n,) int64.

    Returns:
        0 to 1; None if only one class has test images.
    """
    present = labels.bincount().nonzero().flatten()
    areas = roc_auc(scores[:, present], labels[:, None] == present)
    return None if areas.isnan().any() else float(areas.mean())


def is_unbalanced(counts: Sequence[int]) -> bool:
    """Whether the most frequent class has over `UNBALANCED` times the images of the rarest one that has any."""
    present = [count for count in counts if count]
    return max(present) > UNBALANCED * min(present)


def mean_metrics(results: Sequence[Metrics]) -> dict[str, float]:
    """The metrics of `Metrics.numbers`, averaged over probe seeds or random initializations."""
    all_numbers = [result.numbers() for result in results]
    return {name: float(np.mean([numbers[name] for numbers in all_numbers])) for name in all_numbers[0]}


def total_confusion(results: Sequence[LayerMetrics]) -> Tensor:
    """(k, k) int64: the sum of the confusion matrices."""
    return torch.stack([result.confusion for result in results]).sum(0)
