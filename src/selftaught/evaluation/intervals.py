"""95 % intervals of differences of metrics that two sides reach on the same test images.

Accuracy is a mean over images. Two pseudo-observations, one in favor of each side, keep its interval valid if there are
few images or the two sides never differ (Bonett and Price, "Adjusted Wald confidence interval for a difference of
binomial proportions based on paired data", J. Educ. Behav. Stat. 37, 2012). Metrics that are no means over images, such
as average precision, are computed again on bootstrap samples of the images, the same for all sides.

Variances over repetitions, such as random initializations or probe seeds, are added, with the degrees of freedom of
Welch and Satterthwaite.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SAMPLES = 500
"""Bootstrap samples of the test images."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Measured:
    """A metric in r repetitions on the same test images."""

    values: Floats
    """(r,)."""
    observations: NDArray[np.bool_] | Floats
    """(r, n): whether each image is classified correctly, or how often, which makes the values their means; or
    (r, SAMPLES): the metric on each sample of `sample_counts`, NaN where it is undefined."""
    resampled: bool = False
    """Whether the observations are those of samples."""

    @property
    def mean(self) -> float:
        """The mean over the repetitions."""
        return float(self.values.mean())

    def minus(self, other: "Measured", by_repetition: bool = False) -> tuple[float, float, float]:
        """The difference of the means, with its 95 % interval; `by_repetition` as for `paired_interval`."""
        if self.resampled:
            low, high = resampled_interval(self, other, by_repetition)
        else:
            ours, theirs = (torch.from_numpy(side.observations) for side in (self, other))
            low, high = paired_interval(ours, theirs, by_repetition)
        return self.mean - other.mean, low, high


def over_choices(ours: Sequence[Measured], theirs: Sequence[Measured]) -> tuple[float, float, float]:
    """The difference of the chosen layers, the first of either side, with the union of the intervals of all pairs.

    Args:
        ours: the metric at the chosen layer, then at those that held-out images do not separate from it.
        theirs: the same of the other side.
    """
    pairs = [one.minus(other) for one in ours for other in theirs]
    return pairs[0][0], min(low for _, low, _ in pairs), max(high for *_, high in pairs)


def paired_interval(ours: Tensor, theirs: Tensor, by_repetition: bool = False) -> tuple[float, float]:
    """The 95 % interval of the difference between two accuracies on the same images.

    Its variance is that of the differences over images plus that over repetitions. Images and repetitions are crossed
    random factors (Searle, Casella, McCulloch, "Variance Components", 1992, chapter 4: two-way random model). Either
    part includes the variance of the interaction, so the interval is slightly too wide rather than too narrow.

    Args:
        ours: (r, n) bool, whether each image is classified correctly, in each of r repetitions; or a fraction, where a
            repetition is an average.
        theirs: (s, n).
        by_repetition: whether repetition i of both sides has the same random choices, such as the labeled images (then
            r = s): the variance over repetitions is that of the differences, s_d^2 / r. Otherwise the sides are
            independent, and their variances are added.
    """
    ours, theirs = ours.double(), theirs.double()
    center, images = over_images(ours, theirs)
    parts = [images]
    for repeated in [ours - theirs] if by_repetition else [ours, theirs]:
        if len(repeated) > 1:
            parts.append((float(repeated.mean(1).var()) / len(repeated), len(repeated) - 1))
    margin = half_width(parts)
    return max(center - margin, -1.0), min(center + margin, 1.0)


def over_images(ours: Tensor, theirs: Tensor) -> tuple[float, tuple[float, int]]:
    """The difference of two accuracies, with one image added in favor of either side, and its variance over images.

    Args:
        ours: (r, n), float64.
        theirs: (s, n).

    Returns:
        The center of the interval; the variance and its degrees of freedom.
    """
    difference = ours.mean(0) - theirs.mean(0)
    count = len(difference)
    center = float(difference.sum()) / (count + 2)
    spread = (float(difference.square().sum()) + 2) / (count + 2) - center**2
    return center, (spread / (count + 2), count - 1)


def half_width(parts: Sequence[tuple[float, int]]) -> float:
    """Half the width of a 95 % interval whose variance is a sum: Student's t, degrees of freedom by Satterthwaite.

    Args:
        parts: each part of the variance and its degrees of freedom.
    """
    variance = math.fsum(part for part, _ in parts)
    if not variance:
        return 0.0
    degrees_of_freedom = variance**2 / math.fsum(part**2 / max(degrees, 1) for part, degrees in parts)
    return student_t(degrees_of_freedom) * math.sqrt(variance)


def resampled_interval(ours: Measured, theirs: Measured, by_repetition: bool = False) -> tuple[float, float]:
    """The 95 % interval of the difference of two metrics, from bootstrap samples of the images.

    Its variance is that over samples, of the mean over repetitions, plus that over repetitions: images and repetitions
    are crossed, as in `paired_interval`, which also explains `by_repetition`.
    """
    value = ours.mean - theirs.mean
    by_sample = ours.observations.mean(0) - theirs.observations.mean(0)
    parts = [(float(np.nanvar(by_sample, ddof=1)), SAMPLES - 1)]
    for repeated in [ours.values - theirs.values] if by_repetition else [ours.values, theirs.values]:
        if len(repeated) > 1:
            parts.append((float(repeated.var(ddof=1)) / len(repeated), len(repeated) - 1))
    margin = half_width(parts)
    if not math.isfinite(margin):
        margin = 2.0  # undefined in every sample: nothing is known
    return max(value - margin, -1.0), min(value + margin, 1.0)


@lru_cache(maxsize=2)
def sample_counts(images: int) -> NDArray[np.int64]:
    """(SAMPLES, images): how often each image is in each bootstrap sample; the same for every encoder."""
    return np.random.default_rng(0).multinomial(images, np.full(images, 1 / images), SAMPLES)


def student_t(degrees_of_freedom: float) -> float:
    """The 0.975 quantile of Student's t distribution."""
    from scipy.special import stdtrit  # here, because importing it takes a third of a second

    return float(stdtrit(degrees_of_freedom, 0.975))
