"""Sequential encoders in which every block is a layer."""

from torch import Tensor, nn


def chained(blocks: nn.ModuleDict, inputs: Tensor) -> dict[str, Tensor]:
    """Apply blocks in sequence and return the output of each: name -> output."""
    features, hidden = {}, inputs
    for name, block in blocks.items():
        hidden = block(hidden)
        features[name] = hidden
    return features
