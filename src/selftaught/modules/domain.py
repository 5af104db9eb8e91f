"""Adversarial domain adaptation of feature maps: a patch discriminator and a pool of earlier features.

Ren and Lee 2018 with the released code; the pool is that of Shrivastava et al. 2017 ("Learning from Simulated and
Unsupervised Images through Adversarial Training", section 2.3): a discriminator that gets the present features only
forgets the earlier ones.

Letters: B images, C channels.
"""

import torch
from torch import Tensor, nn

from selftaught.augment.draws import common
from selftaught.augment.warp import to_device
from selftaught.modules.processes import own, processes

POOL = 128
"""Number of feature maps in the pool (released code)."""


def discriminator(channels: int, width: int = 512) -> nn.Sequential:
    """(B, C, h, w) -> (B, 1, h / 2, w / 2): a logit for each patch, positive for real images.

    A 3 x 3 convolution of stride 2 and two 1 x 1 convolutions, with leaky ReLU of slope 0.2 (released code).
    """
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, width, 1),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 1, 1),
    )


def draw_slots(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """The slot of the pool that each feature map is exchanged with, or -1 for half of them: (count,) int64.

    Slots differ, so more than `POOL` images are not exchanged.
    """
    slots, shared = torch.full((count * processes().count,), -1), common(generator)
    order = torch.randperm(POOL, generator=shared)[: len(slots)]
    exchanged = torch.rand(len(order), generator=shared) < 0.5
    slots[: len(order)] = torch.where(exchanged, order, -1)
    return to_device(own(slots), device)


class FeaturePool(nn.Module):
    """Feature maps of earlier rendered images. It is part of the heads, so a resumed run has the same.

    Args:
        shape: (C, h, w) of a feature map.
    """

    entries: Tensor
    """(POOL, C, h, w)."""
    filled: Tensor
    """(POOL,) bool, the slots that have an entry."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self.register_buffer("entries", torch.zeros(POOL, *shape))
        self.register_buffer("filled", torch.zeros(POOL, dtype=torch.bool))

    def exchanged(self, features: Tensor, slots: Tensor) -> Tensor:
        """The features, or the entries of their slots where these have one.

        Args:
            features: (B, C, h, w).
            slots: (B,) int64, -1 for features that are not exchanged.
        """
        at = slots.clamp(min=0)
        use = (slots >= 0) & self.filled[at]
        return torch.where(use[:, None, None, None], self.entries[at].to(features.dtype), features)

    def store(self, features: Tensor, slots: Tensor) -> None:
        """Write features to their slots; see `exchanged`."""
        # One slot more receives what is not stored, so that no step waits for the number of features to store.
        at = torch.where(slots >= 0, slots, POOL)
        for buffer, values in ((self.entries, features.to(self.entries.dtype)), (self.filled, slots >= 0)):
            extended = torch.cat([buffer, buffer[:1]])
            extended[at] = values
            buffer.copy_(extended[:POOL])
