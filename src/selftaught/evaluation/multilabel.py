"""Metrics of a classifier of images that may have several classes, computed from its class scores on the test images.

The main one is mAP, the mean over classes of the average precision, as in Goyal et al. 2019 on VOC (here the area under
the whole curve, not at eleven points); ROC AUC is usual for chest X-rays. Both rank the images by the scores of one
class, so no threshold is needed. mAP is no mean over images, so its intervals are bootstrapped.

Letters: n test images, k classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from selftaught.evaluation.intervals import sample_counts
from selftaught.evaluation.metrics import Metrics
from selftaught.evaluation.probes.base import ProbeResult
from selftaught.evaluation.ranking import average_precision, resampled_map, roc_auc


@dataclass(frozen=True)
class MultilabelMetrics(Metrics):
    """The metrics of images that may have several classes. All tensors are on the CPU."""

    name = "map"
    resampled = True

    precisions: Tensor
    """(k,) float64: average precision of each class, NaN for a class that no test image has."""
    areas: Tensor
    """(k,) float64: area under its ROC curve, NaN for a class that no test image or every one has."""
    samples: Tensor
    """(SAMPLES,) float64: mAP on bootstrap samples of the test images, see `sample_counts`."""
    held_value: float
    """mAP on the held-out training images."""
    held_samples: Tensor
    """(SAMPLES,) float64: the same on bootstrap samples of these."""
    held_count: int
    """Number of these images."""
    dimensions: int
    penalty: float | None

    @property
    def value(self) -> float:
        """See `Metrics`: the mean over the classes that test images have."""
        return float(self.precisions.nanmean())

    @property
    def held_out(self) -> float:
        """See `Metrics`."""
        return self.held_value

    @property
    def held_images(self) -> int:
        """See `Metrics`."""
        return self.held_count

    @property
    def held_observations(self) -> NDArray[np.generic]:
        """See `Metrics`."""
        samples: NDArray[np.float64] = self.held_samples.numpy()
        return samples

    @property
    def observations(self) -> NDArray[np.generic]:
        """See `Metrics`: mAP on each sample."""
        samples: NDArray[np.float64] = self.samples.numpy()
        return samples

    @property
    def per_class(self) -> tuple[float | None, ...]:
        """See `Metrics`: average precision."""
        return _optional(self.precisions)

    @property
    def areas_per_class(self) -> tuple[float | None, ...]:
        """Area under the ROC curve of each class; None where it is undefined."""
        return _optional(self.areas)

    def numbers(self) -> dict[str, float]:
        """The mean area under the ROC curves."""
        return {} if self.areas.isnan().all() else {"roc_auc": float(self.areas.nanmean())}

    @classmethod
    def held_difference(cls, first: Sequence[Self], second: Sequence[Self]) -> tuple[float, float, float]:
        """See `Metrics`; the mean over seeds, whose held-out images are drawn independently."""
        pairs = list(zip(first, second, strict=True))
        difference = float(np.mean([one.held_value - other.held_value for one, other in pairs]))
        variances = [np.nanvar((one.held_samples - other.held_samples).numpy(), ddof=1) for one, other in pairs]
        error = math.sqrt(sum(variances)) / len(pairs)
        return difference, error, difference - NormalDist().inv_cdf(0.975) * error


def measure_multilabel(result: ProbeResult) -> MultilabelMetrics:
    """Reduce the scores of a probe to what metrics need."""
    scores, labels = result.scores.double(), result.labels > 0
    held, held_labels = result.held_scores.double(), result.held_labels > 0
    return MultilabelMetrics(
        precisions=average_precision(scores, labels),
        areas=roc_auc(scores, labels),
        samples=resampled_map(scores, labels, torch.from_numpy(sample_counts(len(labels)))),
        held_value=float(average_precision(held, held_labels).nanmean()),
        held_samples=resampled_map(held, held_labels, torch.from_numpy(sample_counts(len(held)))),
        held_count=len(held),
        dimensions=result.dimensions,
        penalty=result.penalty,
    )


def chance_of(labels: Tensor) -> float:
    """The mAP of a random order of many images: the mean fraction of positives of the classes that some image has.

    Args:
        labels: (n, k) of 0 and 1.
    """
    fractions = labels.double().mean(0)
    return float(fractions[fractions > 0].mean())


def _optional(values: Tensor) -> tuple[float | None, ...]:
    return tuple(None if math.isnan(value) else value for value in values.tolist())
