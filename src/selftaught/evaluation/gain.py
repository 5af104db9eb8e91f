"""The gain of pretraining over random weights, with a 95 % interval of the paired difference.

The best layer of either side is chosen by its metric on held-out training images, never on test images. Variation
between pretraining runs is not included, because there is only one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selftaught.evaluation.embedding import without_embedding
from selftaught.evaluation.metrics import Metrics, measured

Results = Sequence[Mapping[str, Metrics]]
"""Layer -> result, for each probe seed or each random initialization."""


@dataclass(frozen=True)
class Gain:
    """Metric of the best trained layer minus that of the best layer of random weights."""

    layer: str
    """The trained layer with the best metric on held-out images."""
    random_layer: str
    """The layer of random weights with the best metric on held-out images, averaged over initializations."""
    value: float
    low: float
    """Lower end of the 95 % interval, -1 to 1."""
    high: float

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return dict(vars(self))


def best_layer(results: Results) -> str:
    """The layer with the best metric on held-out images, averaged over the results; the first one on a tie."""
    return max(without_embedding(results[0]), key=lambda layer: math.fsum(result[layer].held_out for result in results))


def gain_over_random(trained: Results, random: Results) -> Gain:
    """Compare the best trained layer with the best layer of random weights.

    Args:
        trained: results of each probe seed; the test images must be the same everywhere.
        random: results of each random initialization.
    """
    layer, random_layer = best_layer(trained), best_layer(random)
    ours = measured([result[layer] for result in trained])
    theirs = measured([result[random_layer] for result in random])
    return Gain(layer, random_layer, *ours.minus(theirs))
