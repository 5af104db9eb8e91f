"""The gain of pretraining over random weights, with a 95 % interval of the paired difference.

The best layer of either side is chosen by held-out accuracy on training images, never on test images. Both sides
classify the same test images, so the interval is of paired differences. Two pseudo-observations, one in favor of each
side, keep it valid if there are few images or the two sides never differ (Bonett and Price, "Adjusted Wald confidence
interval for a difference of binomial proportions based on paired data", J. Educ. Behav. Stat. 37, 2012). The
variances over random initializations and over repeated probes are added, with the degrees of freedom of Welch and
Satterthwaite. Variation between pretraining runs is not included, because there is only one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from scipy.special import stdtrit
from torch import Tensor

from selftaught.evaluation.metrics import LayerMetrics

Results = Sequence[Mapping[str, LayerMetrics]]
"""Layer -> result, for each probe seed or each random initialization."""


@dataclass(frozen=True)
class Gain:
    """Accuracy of the best trained layer minus that of the best layer of random weights."""

    layer: str
    """The trained layer with the best held-out accuracy."""
    random_layer: str
    """The layer of random weights with the best held-out accuracy, averaged over initializations."""
    value: float
    low: float
    """Lower end of the 95 % interval, -1 to 1."""
    high: float

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return dict(vars(self))


def best_layer(results: Results) -> str:
    """The layer with the best held-out accuracy, averaged over the results; the first one on a tie."""
    return max(results[0], key=lambda layer: math.fsum(result[layer].held_out for result in results))


def gain_over_random(trained: Results, random: Results) -> Gain:
    """Compare the best trained layer with the best layer of random weights.

    Args:
        trained: results of each probe seed; the test images must be the same everywhere.
        random: results of each random initialization.
    """
    layer, random_layer = best_layer(trained), best_layer(random)
    ours = torch.stack([result[layer].correct for result in trained])
    theirs = torch.stack([result[random_layer].correct for result in random])
    value = float(ours.double().mean() - theirs.double().mean())
    return Gain(layer, random_layer, value, *paired_interval(ours, theirs))


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
    difference = ours.mean(0) - theirs.mean(0)
    count = len(difference)
    center = float(difference.sum()) / (count + 2)
    spread = (float(difference.square().sum()) + 2) / (count + 2) - center**2
    parts = [(spread / (count + 2), count - 1)]
    for repeated in [ours - theirs] if by_repetition else [ours, theirs]:
        if len(repeated) > 1:
            parts.append((float(repeated.mean(1).var()) / len(repeated), len(repeated) - 1))
    margin = half_width(parts)
    return max(center - margin, -1.0), min(center + margin, 1.0)


def half_width(parts: Sequence[tuple[float, int]]) -> float:
    """Half the width of a 95 % interval whose variance is a sum: Student's t, degrees of freedom by Satterthwaite.

    Args:
        parts: each part of the variance and its degrees of freedom.
    """
    variance = math.fsum(part for part, _ in parts)
    if not variance:
        return 0.0
    degrees_of_freedom = variance**2 / math.fsum(part**2 / max(degrees, 1) for part, degrees in parts)
    return float(stdtrit(degrees_of_freedom, 0.975)) * math.sqrt(variance)
