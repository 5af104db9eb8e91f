"""How certain the choice of the best layer is: the paired difference of the two best layers on held-out images."""

import math
from dataclasses import dataclass

from selftaught.evaluation.embedding import without_embedding
from selftaught.evaluation.gain import Results

ENOUGH = 1000
"""Number of held-out images from which the choice is not reported as uncertain: the paired standard error is the root
of (fraction of the images that the layers classify differently) / (number of images), so for 1,000 images and layers
that differ on a tenth of them it is 0.01. Layers that this does not separate are about equally good."""


@dataclass(frozen=True)
class LayerChoice:
    """The two layers with the best held-out accuracies, and whether the held-out images separate them."""

    layer: str
    runner_up: str
    images: int
    """Held-out images of a probe seed; the smallest number if it differs."""
    difference: float
    """Held-out accuracy (or mAP) of the best layer minus that of the runner-up, 0 to 1."""
    standard_error: float
    """Of the difference, paired by image."""
    separated: bool
    """Whether the 95 % interval of the difference is above 0."""

    @property
    def note(self) -> str:
        """A line for the caption of the table; empty if the choice is certain, or there are enough images."""
        if self.separated or self.images >= ENOUGH:
            return ""
        images = f"{self.images:,} held-out image{'s' * (self.images != 1)}"
        return (
            f"Only {images}: the choice of layer ({self.layer} or {self.runner_up}) is uncertain; the interval of the "
            "gain covers both."
        )

    def to_json(self) -> dict[str, object]:
        """Plain values."""
        return {**vars(self), "note": self.note}


def layer_choice(results: Results) -> LayerChoice | None:
    """Compare the two layers with the best held-out accuracies (or mAP), averaged over the results.

    Args:
        results: layer -> result, for each probe seed.

    Returns:
        None if there is only one layer.
    """
    layers = without_embedding(results[0])
    layers.sort(key=lambda layer: -math.fsum(result[layer].held_out for result in results))
    if len(layers) < 2:
        return None
    best, second = ([result[layer] for result in results] for layer in layers[:2])
    difference, error, low = type(best[0]).held_difference(best, second)
    return LayerChoice(
        layer=layers[0],
        runner_up=layers[1],
        images=min(result.held_images for result in best),
        difference=difference,
        standard_error=error,
        separated=low > 0,
    )
