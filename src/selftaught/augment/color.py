"""Color augmentation: brightness, contrast, saturation, hue and grayscale as one matrix per image, applied once.

Brightness, contrast, saturation and grayscale are torchvision's formulas (in that order, without its clamp between the
steps). Hue is a rotation about the gray axis in YIQ instead of a shift in HSV: it is linear, preserves luma, and gives
similar colors at common angles. The result is clamped to [0, 1] once.
"""

import math

import torch
from torch import Tensor

from selftaught.augment.warp import bernoulli, to_device, uniform
from selftaught.errors import UserError

LUMA = torch.tensor([0.2989, 0.587, 0.114])
"""Weights of red, green and blue in grayscale (ITU-R BT.601, with torchvision's digits)."""

_YIQ = torch.tensor([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


def recolor(images: Tensor, linear: Tensor, of_mean: Tensor, clamp: bool = True) -> Tensor:
    """Color of each pixel p of an image with mean color m becomes `linear @ p + of_mean @ m`.

    Args:
        images: (B, 3, H, W) in [0, 1].
        linear: (B, 3, 3).
        of_mean: (B, 3, 3); needed only for contrast, which scales about the image's mean.
        clamp: whether the result is clamped to [0, 1].

    Returns:
        (B, 3, H, W).
    """
    count, _, height, width = images.shape
    pixels = images.reshape(count, 3, -1)
    linear, of_mean = (to_device(m.to(images.dtype), images.device) for m in (linear, of_mean))
    pivot = of_mean @ pixels.mean(2, keepdim=True)
    changed = torch.baddbmm(pivot, linear, pixels)
    return (changed.clamp_(0, 1) if clamp else changed).reshape(count, 3, height, width)


def color_matrices(
    brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor, grayscale: Tensor
) -> tuple[Tensor, Tensor]:
    """The matrices of `recolor` for given factors.

    Args:
        brightness: (B,) factor; 1 for no change.
        contrast: (B,) factor about the mean gray level of the image.
        saturation: (B,) factor about the gray level of each pixel.
        hue: (B,) rotation as a fraction of the full circle, -0.5 to 0.5.
        grayscale: (B,) 1 to convert to grayscale, 0 to keep colors.

    Returns:
        linear and of_mean, both (B, 3, 3).
    """
    eye, to_gray = torch.eye(3), LUMA.expand(3, 3)
    b, c = brightness[:, None, None], contrast[:, None, None]
    s = (saturation * (1 - grayscale))[:, None, None]
    angle = -2 * math.pi * hue  # so that red turns to yellow, as in HSV
    turn = torch.zeros(len(hue), 3, 3)
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = torch.cos(angle)
    turn[:, 1, 2], turn[:, 2, 1] = -torch.sin(angle), torch.sin(angle)
    # saturation 0 after the rotation, not before, so that gray stays gray
    after = (s * eye + (1 - s) * to_gray) @ torch.linalg.inv(_YIQ) @ turn @ _YIQ
    return after * (b * c), after @ to_gray.expand(len(b), 3, 3) * (b * (1 - c))


GREEN_MAGENTA = torch.tensor([-1.0, 2.0, -1.0])
"""From magenta to green, the color axis of chromatic aberration (Doersch et al. 2015, section 3.1)."""


def projection(on: Tensor) -> tuple[Tensor, Tensor]:
    """Matrices of `recolor` that remove the green-magenta axis: B = I - a^T a / (a a^T) with a = [-1, 2, -1].

    Red and blue of a projected color lie in [-1/6, 7/6]. They must not be clamped, which would bring a component along
    the axis back: 22 % of the pixels of a colorful photo had one.

    Args:
        on: (B,) 1 to project, 0 for no change.

    Returns:
        linear and of_mean, both (B, 3, 3). Gray is unchanged.
    """
    removed = torch.outer(GREEN_MAGENTA, GREEN_MAGENTA) / GREEN_MAGENTA.square().sum()
    linear = torch.eye(3) - on[:, None, None] * removed
    return linear, torch.zeros_like(linear)


def drop_channels(images: Tensor, channel: Tensor, noise: Tensor) -> Tensor:
    """Keep one channel of each image and replace the others by noise.

    Args:
        images: (n, C, H, W).
        channel: (n,) int64, the channel to keep.
        noise: (n, C, H, W), or broadcastable to it.
    """
    here = to_device(channel, images.device)[:, None] == torch.arange(images.shape[1], device=images.device)
    return torch.where(here[..., None, None], images, to_device(noise, images.device))


def random_color(
    count: int,
    generator: torch.Generator,
    *,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.1,
    grayscale: float = 0.0,
    probability: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Random matrices for `recolor`.

    Args:
        count: number of images.
        generator: random generator.
        brightness: factors are uniform in 1 - brightness to 1 + brightness; contrast and saturation likewise.
        contrast: see brightness.
        saturation: see brightness.
        hue: rotations are uniform in -hue to hue, as a fraction of the circle.
        grayscale: probability of conversion to grayscale.
        probability: fraction of the images with color jitter (independent of grayscale).
    """
    on = bernoulli(probability, count, generator)

    def factor(spread: float) -> Tensor:
        return 1 + on * uniform(-spread, spread, count, generator)

    factors = factor(brightness), factor(contrast), factor(saturation)
    turn = on * uniform(-hue, hue, count, generator)
    return color_matrices(*factors, turn, bernoulli(grayscale, count, generator))


def require_jitter(jitter: tuple[float, float, float, float], grayscale: float) -> None:
    """Reject invalid color jitter (brightness, contrast, saturation, hue) or an invalid fraction of gray images."""
    *factors, hue = jitter
    if not (all(0 <= factor <= 1 for factor in factors) and 0 <= hue <= 0.5 and 0 <= grayscale <= 1):
        raise UserError(
            "--jitter must be three factors in [0, 1] and a hue in [0, 0.5], and --grayscale a fraction in [0, 1], got "
            f"{' '.join(map(str, jitter))} and {grayscale}; try 0.4 0.4 0.4 0.1 and 0.2."
        )
