"""Generators: pictures from noise, and what the games share in which somebody has to tell them from images.

Radford, Metz, Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks"
(DCGAN), ICLR 2016. https://arxiv.org/abs/1511.06434
"""

import math
from abc import ABC
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from selftaught.augment.warp import to_device
from selftaught.contracts import Batch, Views
from selftaught.errors import UserError
from selftaught.modules.crops import CropTask
from selftaught.modules.precision import at_least_float32

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
        self.blocks.extend([nn.ConvTranspose2d(widths[-1], 3, 4, stride=2, padding=1), FullPrecisionSigmoid()])

    def forward(self, noise: Tensor) -> Tensor:
        """(B, latent) -> (B, 3, size, size)."""
        # Channels last, as the convolutions that follow have them.
        begun = self.dense(noise).unflatten(1, (self.side, self.side, -1)).permute(0, 3, 1, 2)
        made: Tensor = self.blocks(begun)
        return made[..., : self.size, : self.size]


class FullPrecisionSigmoid(nn.Sigmoid):
    """A sigmoid computed in float32 under autocast.

    In bfloat16 bright pixels would be multiples of 1/256 or 1/512, which images are not: a discriminator could tell
    generated images by that alone.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Any shape -> the same shape, in (0, 1)."""
        return super().forward(at_least_float32(values))


@dataclass(frozen=True)
class GenerationGame(CropTask, ABC):
    """Images on one side, pictures made from noise on the other.

    Letters: B images, S pixels along a view, Z numbers that a picture is generated from.
    """

    latent: int = 100
    """Numbers that a picture is generated from, uniform from -1 to 1 (DCGAN: 100; BiGAN: 200, for views of 64
    pixels)."""
    generator_width: int = 64
    """Channels of the generator's largest map; maps half as large have twice as many (DCGAN: 128; BiGAN: 64)."""
    crop: float = 0.75
    """Side of the views, and of what is generated, as a share of --size: they cost half as much, and the encoder can be
    asked about whole images; 1 for an encoder that reads a single size."""

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        super().__post_init__()
        if self.latent < 1 or self.generator_width < 1:
            raise UserError(
                "--latent and --generator-width must be at least 1, found "
                f"{self.latent} and {self.generator_width}: try 100 and 64."
            )

    def make_generator(self) -> Generator:
        """One of views."""
        return Generator(self.latent, self.side, self.generator_width)

    def views(self, batch: Batch, generator: torch.Generator) -> Views:
        """`images` (B, 3, S, S) and the `noise` (B, Z) that as many are generated from."""
        images, noise = self.cropped(batch, generator), uniform_noise(len(batch), self.latent, generator)
        return {"images": images, "noise": to_device(noise, images.device)}


def uniform_noise(count: int, latent: int, generator: torch.Generator) -> Tensor:
    """(count, latent) draws between -1 and 1: DCGAN's and BiGAN's."""
    return 2 * torch.rand(count, latent, generator=generator) - 1
