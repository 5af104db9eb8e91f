"""Blocks in a row, each of which is a layer to be read."""

from torch import Tensor, nn


def chained(blocks: nn.ModuleDict, seen: Tensor) -> dict[str, Tensor]:
    """What every block says, the next of what the one before it said: name -> its output."""
    features = {}
    for name, block in blocks.items():
        seen = block(seen)
        features[name] = seen
    return features
