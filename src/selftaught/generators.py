"""Generators: pictures from noise, for games in which somebody has to tell them from images.

Radford, Metz, Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks"
(DCGAN), ICLR 2016. https://arxiv.org/abs/1511.06434
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from selftaught.errors import UserError

MOST = 512
"""Channels of the smallest map, at most (as in the release of BiGAN; DCGAN has 1,024)."""


class Generator(nn.Module):
    """(B, latent), noise -> (B, 3, size, size) in [0, 1], by DCGAN's up-convolutions (its figure 1).

    A dense layer makes a map of 4 by 4 positions; up-convolutions of stride 2 double it and halve its channels, with
    batch norm and ReLU between them; a sigmoid ends it, as in the release of BiGAN (DCGAN has tanh, for pictures from
    -1 to 1). Where `size` is not 4 * 2^n the map has up to 8 by 8 positions, and what is too much is cut off.

    Filters are 4 x 4, as in the release of DCGAN, and not 5 x 5 as in that of BiGAN: a multiple of the stride covers
    all pixels alike (Odena et al. 2016, "Deconvolution and Checkerboard Artifacts").

    Args:
        latent: numbers that a picture is made from.
        size: pixels along the picture.
        width: channels of the largest map; each half as large has twice as many, up to `MOST`.

    Raises:
        UserError: the pictures would be smaller than two maps.
    """

    def __init__(self, latent: int, size: int, width: int = 64) -> None:
        super().__init__()
        if size < 8:
            raise UserError(f"a generator needs views of at least 8 pixels, found {size}: give a larger --size.")
        doublings = int(math.log2(size / 4))
        self.size, self.side = size, math.ceil(size / 2**doublings)
        widths = [min(MOST, width * 2**n) for n in reversed(range(doublings))]
        self.dense = nn.Linear(latent, widths[0] * self.side**2, bias=False)
        self.blocks = nn.Sequential(nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True))
        for inputs, outputs in pairwise(widths):
            self.blocks.append(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False))
            self.blocks.extend([nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)])
        self.blocks.extend([nn.ConvTranspose2d(widths[-1], 3, 4, stride=2, padding=1), nn.Sigmoid()])

    def forward(self, noise: Tensor) -> Tensor:
        """(B, latent) -> (B, 3, size, size)."""
        # Channels last, as the convolutions that follow have them.
        begun = self.dense(noise).unflatten(1, (self.side, self.side, -1)).permute(0, 3, 1, 2)
        made: Tensor = self.blocks(begun)
        return made[..., : self.size, : self.size]


def uniform_noise(count: int, latent: int, generator: torch.Generator) -> Tensor:
    """(count, latent) draws between -1 and 1: DCGAN's and BiGAN's."""
    return 2 * torch.rand(count, latent, generator=generator) - 1
