"""The embedding that the loss of a pretext task compares, as a further layer of an encoder.

Wu et al. 2018 (section 4.1) classify the nearest neighbors of embeddings; Chen et al. 2020 (SimCLR, section 4.2) found
the layer before the projection to be better. The embedding is measured beside the layers, and is never the best one:
the projection is not transferred, and random weights of a projection that ends in a batch norm may be a stronger
reference for k-NN than any random layer, so gains over random weights would not be comparable between tasks.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from selftaught.contracts import Encoder, Layer, pooled

EMBEDDING = "embedding"
"""Name of the layer."""
NOTE = (
    "The embedding is the output of the projection head, which the pretext loss compares; it is never the best layer."
)


def without_embedding(layers: Iterable[str]) -> list[str]:
    """The layers of the encoder, among which the best one is chosen."""
    return [layer for layer in layers if layer != EMBEDDING]


@dataclass(frozen=True)
class Projection:
    """The projection head of a task: features of the last layer, averaged over positions, (B, C) -> (B, D)."""

    trained: nn.Module
    fresh: Callable[[int], nn.Module]
    """Seed -> the same head with random weights."""


class Projected(Encoder):
    """An encoder and its projection: `features` has one more layer, `EMBEDDING`, the last one.

    Args:
        encoder: with any layers.
        projection: (B, C) -> (B, D).
    """

    def __init__(self, encoder: Encoder, projection: nn.Module) -> None:
        super().__init__()
        self.encoder, self.projection = encoder, projection
        self.input_mode, self.preprocess = encoder.input_mode, encoder.preprocess
        projection.eval()
        with torch.no_grad():
            dimensions = projection(torch.zeros(1, encoder.last.channels)).shape[1]
        self.layers = {**encoder.layers, EMBEDDING: Layer(dimensions, 0)}

    def features(self, inputs: Tensor) -> dict[str, Tensor]:
        """See `Encoder`; the embedding is (B, D)."""
        features = self.encoder.features(inputs)
        return {**features, EMBEDDING: self.projection(pooled(list(features.values())[-1]))}
