"""The `conv` probe: a small convolutional classifier on the feature map of every layer.

The convolutional classifier of Gidaris et al. 2018 on CIFAR-10: the third block of Network in Network (3 x 3, 1 x 1 and
1 x 1 convolutions to 192 channels, each with batch norm and ReLU), global average pooling and a linear layer; learning
rate 0.1 at 128 images, divided by five after epochs 35, 70 and 85 of 100, Nesterov momentum 0.9, weight decay 5e-4.

Its input is a map of at most 8 x 8 positions, as in the paper's second block; larger maps are pooled to 8 x 8, and
features without positions are maps of one position. The limit on dimensions does not apply, so channels are kept.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from selftaught.contracts import pooled
from selftaught.evaluation.features import Viewing, pool_to
from selftaught.evaluation.probes.mlp import initialized
from selftaught.evaluation.probes.trained import TrainedProbe

SIDE = 8
"""Largest side of a map."""
WIDTH = 192


@dataclass(frozen=True)
class ConvProbe(TrainedProbe):
    """Convolutional classifiers trained by SGD."""

    epochs: int = 100
    """Number of passes over the training images."""
    learning_rate: float = 0.2
    """Learning rate per 256 images of a batch."""
    milestones: tuple[float, ...] = (0.35, 0.7, 0.85)
    """Fractions of the steps after which the learning rate is multiplied by gamma."""
    gamma: float = 0.2
    """Factor on the learning rate at each milestone."""

    def inputs(self, feature: Tensor, viewing: Viewing) -> Tensor:
        """See `TrainedProbe`: a map, (B, C, h, w) with h and w at most 8."""
        if feature.ndim != 4:
            return pooled(feature.float())[:, :, None, None]
        side = min(SIDE, *feature.shape[-2:])
        return pool_to(feature.float(), side, viewing.pooling)

    def head(self, shape: torch.Size, classes: int, generator: torch.Generator) -> nn.Module:
        """See `TrainedProbe`."""
        blocks: list[nn.Module] = []
        for inputs, kernel in ((shape[0], 3), (WIDTH, 1), (WIDTH, 1)):
            convolution = nn.Conv2d(inputs, WIDTH, kernel, padding=kernel // 2, bias=False, device="meta")
            blocks += [convolution.to_empty(device="cpu"), nn.BatchNorm2d(WIDTH), nn.ReLU(inplace=True)]
        last = nn.Linear(WIDTH, classes, device="meta").to_empty(device="cpu")
        blocks += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), last]
        return initialized(nn.Sequential(*blocks), generator)
