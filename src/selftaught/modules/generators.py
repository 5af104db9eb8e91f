"""Generators: images from noise.

Radford, Metz, Chintala, "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks"
(DCGAN), ICLR 2016. https://arxiv.org/abs/1511.06434
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from selftaught.augment.draws import rand
from selftaught.errors import UserError
from selftaught.modules.precision import at_least_float32

MAX_CHANNELS = 512
"""Maximum number of channels of the smallest map (as in the released code of BiGAN; DCGAN has 1,024)."""


class Generator(nn.Module):
    """Noise (B, latent) -> images (B, 3, size, size) in [0, 1], by DCGAN's transposed convolutions (its figure 1).

    A dense layer makes a map of 4 by 4 positions; transposed convolutions of stride 2 double its side and halve its
    channels, with batch norm and ReLU between them; the output is a sigmoid, as in the released code of BiGAN (DCGAN
    has tanh, for images in [-1, 1]). Where `size` is not 4 * 2^n the map has up to 8 by 8 positions, and the output is
    cropped.

    Filters are 4 x 4, as in the released code of DCGAN, not 5 x 5 as in that of BiGAN: with a multiple of the stride
    all pixels are covered equally (Odena et al. 2016, "Deconvolution and Checkerboard Artifacts").

    Args:
        latent: dimensions of the noise.
        size: side of the images in pixels.
        width: channels of the largest map; maps of half the side have twice as many, up to `MAX_CHANNELS`.

    Raises:
        UserError: `size` is below 8.
    """

    def __init__(self, latent: int, size: int, width: int = 64) -> None:
        super().__init__()
        if size < 8:
            raise UserError(f"a generator needs views of at least 8 pixels, got {size}; increase --size.")
        doublings = int(math.log2(size / 4))
        self.size, self.side = size, math.ceil(size / 2**doublings)
        widths = [min(MAX_CHANNELS, width * 2**n) for n in reversed(range(doublings))]
        self.dense = nn.Linear(latent, widths[0] * self.side**2, bias=False)
        self.blocks = nn.Sequential(nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True))
        for inputs, outputs in pairwise(widths):
            self.blocks.append(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=False))
            self.blocks.extend([nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)])
        self.blocks.extend([nn.ConvTranspose2d(widths[-1], 3, 4, stride=2, padding=1), FullPrecisionSigmoid()])

    def forward(self, noise: Tensor) -> Tensor:
        """(B, latent) -> (B, 3, size, size)."""
        # Channels last, the memory format of the convolutions that follow.
        start = self.dense(noise).unflatten(1, (self.side, self.side, -1)).permute(0, 3, 1, 2)
        generated: Tensor = self.blocks(start)
        return generated[..., : self.size, : self.size]


class FullPrecisionSigmoid(nn.Sigmoid):
    """A sigmoid computed in float32 under autocast.

    In bfloat16 bright pixels would be multiples of 1/256 or 1/512, unlike those of images: a discriminator could
    recognize generated images by that alone.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Any shape -> the same shape, in (0, 1)."""
        return super().forward(at_least_float32(values))


def uniform_noise(count: int, latent: int, generator: torch.Generator) -> Tensor:
    """(count, latent) uniform in [-1, 1], as in DCGAN and BiGAN."""
    return 2 * rand(count, latent, generator=generator) - 1
