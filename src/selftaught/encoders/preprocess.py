"""Input preprocessing of encoders: normalized color, lightness, gray, or edges (Sobel).

Preprocessing is fixed: it has no weights and no entries in a state dict. It keeps the precision of the images even
under autocast, because bfloat16 changes a bright pixel by up to half an 8-bit step, which is large for an edge filter.
It is differentiable, so that figures can optimize images.

Tokens are not covered here: see `palette.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from selftaught.augment.lab import rgb_to_lightness
from selftaught.errors import unknown

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of red, green and blue over ImageNet's training images, as used by torchvision."""


class Preprocess(nn.Module, ABC):
    """(B, 3, H, W) color in [0, 1] -> (B, channels, H, W), about zero mean and unit scale."""

    channels: int

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, channels, H, W)."""


class Color(Preprocess):
    """Red, green and blue, each normalized to about zero mean and unit standard deviation."""

    channels = 3
    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 3, H, W)."""
        return (images - self.mean) / self.std


class Grayscale(Preprocess):
    """The unweighted mean of the three normalized color channels.

    Equal weights rather than luma, as at the input of DeepCluster's Sobel filters (Caron et al. 2018, released
    `models/alexnet.py`, a 1x1 convolution filled with 1/3). For perceptual gray use "lightness".
    """

    channels = 1

    def __init__(self) -> None:
        super().__init__()
        self.color = Color()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1, H, W)."""
        normalized: Tensor = self.color(images)
        return normalized.mean(1, keepdim=True)


class Sobel(Preprocess):
    """The gradient of `Grayscale` along x (to the right) and y (down), times 8: the usual 3 x 3 Sobel filters.

    DeepCluster's fixed Sobel filters with two differences. The sign is positive where the image brightens to the right
    or down. The border is padded by reflection, so the gradient across it is zero; DeepCluster pads with zeros, which
    creates edges around every image (and around every tile, a shortcut for jigsaw puzzles).
    """

    channels = 2

    def __init__(self) -> None:
        super().__init__()
        self.grayscale = Grayscale()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2, H, W)."""
        # Sums of shifted copies instead of a convolution, which autocast would run in bf16 (8 bits of precision).
        gray = pad(self.grayscale(images), (1, 1, 1, 1), mode="reflect")
        down_smoothed = gray[..., :-2, :] + 2 * gray[..., 1:-1, :] + gray[..., 2:, :]
        right_smoothed = gray[..., :-2] + 2 * gray[..., 1:-1] + gray[..., 2:]
        along_x = down_smoothed[..., 2:] - down_smoothed[..., :-2]
        along_y = right_smoothed[..., 2:, :] - right_smoothed[..., :-2, :]
        return torch.cat([along_x, along_y], 1)


class Lightness(Preprocess):
    """L of CIE L*a*b* for sRGB under D65, scaled from [0, 100] to [-1, 1]; input of Zhang, Isola and Efros (2016)."""

    channels = 1

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1, H, W)."""
        return rgb_to_lightness(images) / 50 - 1


PREPROCESSORS: dict[str, Callable[[], Preprocess]] = {
    "color": Color,
    "lightness": Lightness,
    "grayscale": Grayscale,
    "sobel": Sobel,
}
"""Values of `input_mode`, except "tokens"."""


def make_preprocess(input_mode: str) -> Preprocess:
    """Build the preprocessing of an input mode.

    Raises:
        UserError: there is no such input mode.
    """
    if input_mode not in PREPROCESSORS:
        raise unknown("input mode", input_mode, PREPROCESSORS)
    return PREPROCESSORS[input_mode]()
