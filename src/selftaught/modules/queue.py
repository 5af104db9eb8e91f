"""The queue of embeddings of earlier batches (He et al. 2020, section 3.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Queue(nn.Module):
    """The last K embeddings, at first random unit vectors.

    Args:
        length: K.
        dimensions: D.
    """

    entries: Tensor
    position: Tensor

    def __init__(self, length: int, dimensions: int) -> None:
        super().__init__()
        self.register_buffer("entries", F.normalize(torch.randn(length, dimensions), dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    def replace_oldest(self, embeddings: Tensor) -> None:
        """Replace the oldest entries by embeddings (B, D), of which the last K are kept."""
        length = len(self.entries)
        latest = embeddings[-length:].to(self.entries.dtype)
        places = (self.position + torch.arange(len(latest), device=latest.device)) % length
        self.entries.index_copy_(0, places, latest)
        self.position.copy_((self.position + len(latest)) % length)
