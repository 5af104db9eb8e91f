"""The gain of pretraining over random weights, with a 95 % interval of the paired difference.

The best layer of either side is chosen by its metric on held-out training images, never on test images. Few of these
often choose another layer than many would: with three layers that differ by up to 0.04, 200 held-out and 10,000 test
images gave random weights a gain over other random weights in 26 % of simulated cases. So the interval is the union of
those of all layers that the held-out images do not separate from the best one, as in the selection of a subset that
contains the best (Gupta, "On some multiple decision (selection and ranking) rules", Technometrics 7, 1965), here at
95 % for each pair of layers.

Variation between pretraining runs is not included, because there is only one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from selftaught.evaluation.embedding import without_embedding
from selftaught.evaluation.intervals import Measured, over_choices
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
    layers: tuple[str, ...] = ()
    """All layers that the interval covers: those that held-out images do not separate from the best one."""
    random_layers: tuple[str, ...] = ()
    """The same for random weights."""

    @property
    def is_uncertain(self) -> bool:
        """Whether held-out images do not decide which layer is the best one."""
        return len(self.layers) > 1 or len(self.random_layers) > 1

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
        random: results of each random initialization; the held-out images, too, must be the same.
    """
    layers, random_layers = possible_layers(trained), possible_layers(random, same_images=True)
    difference = over_choices(at_layers(trained, layers), at_layers(random, random_layers))
    in_order = [
        tuple(name for name in results[0] if name in names)
        for results, names in ((trained, layers), (random, random_layers))
    ]
    return Gain(layers[0], random_layers[0], *difference, *in_order)


def possible_layers(results: Results, same_images: bool = False) -> list[str]:
    """The best layer on held-out images, then all layers that these do not show to be worse.

    Args:
        results: of one encoder with each probe seed, or of each random initialization.
        same_images: whether all results have the same held-out images.
    """
    best = best_layer(results)
    is_possible = _is_possible_of_same if same_images else _is_possible
    others = (layer for layer in without_embedding(results[0]) if layer != best)
    return [best, *(layer for layer in others if is_possible(results, best, layer))]


def at_layers(results: Results, layers: Sequence[str]) -> list[Measured]:
    """The metric on the test images at each of some layers."""
    return [measured([result[layer] for result in results]) for layer in layers]


def candidates(probes: Sequence[Mapping[str, Any]], key: str) -> set[str]:
    """Layers that are not significantly worse than the best one on the held-out images of one of several probes.

    Args:
        probes: as stored, see `ProbeTable.to_json`; those of earlier versions have no such layers.
        key: "layers", or "random_layers" for random weights.
    """
    gains = [gain for probe in probes if isinstance(gain := probe.get("gain"), Mapping)]
    return {str(layer) for gain in gains if isinstance(names := gain.get(key), list) for layer in names}


def _is_possible(results: Results, best: str, other: str) -> bool:
    """Whether a layer is not significantly worse than the best one on held-out images, others for each result."""
    sides = [[result[name] for result in results] for name in (best, other)]
    return type(sides[0][0]).held_difference(*sides)[2] <= 0


def _is_possible_of_same(results: Results, best: str, other: str) -> bool:
    """The same for results with the same held-out images."""
    first, second = (
        Measured(
            np.array([result[name].held_out for result in results]),
            np.stack([result[name].held_observations for result in results]),
            results[0][name].resampled,
        )
        for name in (best, other)
    )
    return first.minus(second, by_repetition=True)[1] <= 0
