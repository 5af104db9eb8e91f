"""What an encoder reads of a colour image: normalised colour, lightness, grey, or edges.

A look is fixed: it has no weights and leaves nothing in a state dict. It works in the precision of the images even
under autocast, because bfloat16 moves a bright pixel by up to half an 8-bit step, which is much of what an edge filter
has to see. It is differentiable, so that figures may ask what an encoder would rather see.

Not here: tokens (`gpt.py` turns colours into words of a palette it learned).
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
"""Mean and deviation of red, green and blue over ImageNet's training images, as torchvision's models were given."""


class Preprocess(nn.Module, ABC):
    """(B, 3, H, W) colour in [0, 1] -> (B, channels, H, W), about zero mean and unit scale."""

    channels: int

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, channels, H, W)."""


class Color(Preprocess):
    """Red, green and blue, each shifted and scaled to about zero mean and unit deviation."""

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


class Grey(Preprocess):
    """The plain mean of the three normalised colours.

    Equal weights and not luma: it is what DeepCluster's Sobel stem begins with (Caron et al. 2018, released
    `models/alexnet.py`, a 1x1 convolution filled with 1/3). Who wants grey as the eye weighs it reads "lightness".
    """

    channels = 1

    def __init__(self) -> None:
        super().__init__()
        self.color = Color()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1, H, W)."""
        normalised: Tensor = self.color(images)
        return normalised.mean(1, keepdim=True)


class Sobel(Preprocess):
    """The slope of `Grey` along x (to the right) and y (down), times 8: the usual 3 x 3 Sobel masks.

    DeepCluster's fixed stem with two differences. The sign: ours is positive where it brightens to the right or down.
    The border: ours is mirrored about the outermost pixel, so the slope across it is zero, where theirs is padded with
    zeros, which draws a frame around every image (and around every tile, where a puzzle could be solved by it).
    """

    channels = 2

    def __init__(self) -> None:
        super().__init__()
        self.grey = Grey()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 2, H, W)."""
        # Sums of shifted copies and not a convolution: autocast would run that in 8 bits of precision.
        grey = pad(self.grey(images), (1, 1, 1, 1), mode="reflect")
        down_smoothed = grey[..., :-2, :] + 2 * grey[..., 1:-1, :] + grey[..., 2:, :]
        right_smoothed = grey[..., :-2] + 2 * grey[..., 1:-1] + grey[..., 2:]
        along_x = down_smoothed[..., 2:] - down_smoothed[..., :-2]
        along_y = right_smoothed[..., 2:, :] - right_smoothed[..., :-2, :]
        return torch.cat([along_x, along_y], 1)


class Lightness(Preprocess):
    """L of CIE L*a*b* for sRGB under D65, moved from [0, 100] to [-1, 1]: what Zhang, Isola and Efros (2016) colour."""

    channels = 1

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1, H, W)."""
        return rgb_to_lightness(images) / 50 - 1


PREPROCESSORS: dict[str, Callable[[], Preprocess]] = {
    "color": Color,
    "lightness": Lightness,
    "grey": Grey,
    "sobel": Sobel,
}
"""What `reads` may be."""


def make_preprocess(input_mode: str) -> Preprocess:
    """The look called `reads`.

    Raises:
        UserError: there is no look of that name.
    """
    if input_mode not in PREPROCESSORS:
        raise unknown("preprocess", input_mode, PREPROCESSORS)
    return PREPROCESSORS[input_mode]()
