"""Random views of an image for joint-embedding tasks: crop, flip, color jitter, grayscale, blur and solarization.

Geometry is one resampling and color one matrix; blur is one matrix along each axis, since views are small and every
view has its own kernel. Which operations apply to which view is drawn on the CPU, so that no step waits for a GPU, and
views that are not blurred or solarized have no extra cost. An operation that is switched off draws nothing.

Chen et al. 2020 (SimCLR, appendix A), Grill et al. 2020 (BYOL, appendix B).

Letters: B images, K views of an image, S pixels along a view.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from selftaught.augment.color import random_color, recolor, require_jitter
from selftaught.augment.warp import bernoulli, random_crop, require_shares, to_device, uniform
from selftaught.contracts import Batch
from selftaught.errors import UserError, require_ranges
from selftaught.limits import FRACTION


@dataclass(frozen=True)
class ViewAugmentation:
    """Parameters of a random view of an image; the defaults are SimCLR's."""

    crop_area: tuple[float, float] = (0.2, 1.0)
    """Range of the fraction of the image's area that a view shows (SimCLR: from 0.08, at 224 pixels)."""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of width over height."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    """Strength of brightness, contrast, saturation and hue jitter (SimCLR: 0.8, 0.8, 0.8, 0.2)."""
    jitter_probability: float = 0.8
    """Probability of color jitter."""
    grayscale: float = 0.2
    """Probability of conversion to gray."""
    blur: float = 0.5
    """Probability of a Gaussian blur."""
    blur_sigma: tuple[float, float] = (0.1 / 224, 2.0 / 224)
    """Range of its standard deviation as a fraction of the view's side (SimCLR: 0.1 to 2 of 224 pixels)."""
    solarize: float = 0.0
    """Probability of solarization, the inversion of values above 0.5 (BYOL: 0.2 for the second view)."""

    def __post_init__(self) -> None:
        """Reject invalid ranges and probabilities."""
        require_shares("--crop-area", self.crop_area)
        require_jitter(self.jitter, self.grayscale)
        require_ranges(self, flip=FRACTION, jitter_probability=FRACTION, blur=FRACTION, solarize=FRACTION)
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1] <= 0.5:
            raise UserError(
                f"--blur-sigma expects a range with 0 < low <= high <= 0.5, got {self.blur_sigma[0]} "
                f"{self.blur_sigma[1]}."
            )

    def views(self, batch: Batch, size: int, generator: torch.Generator, copies: int = 1) -> Tensor:
        """Random views of every image.

        Args:
            batch: the images.
            size: S.
            generator: source of all randomness.
            copies: K.

        Returns:
            (B * K, 3, S, S) in [0, 1], the views of an image in a row.
        """
        crops = self.crops(len(batch) * copies, generator)
        images = batch.warp(crops.reshape(len(batch), copies, 3, 3), size).flatten(0, 1)
        images = self.recolor(images, generator)
        images = self._blur(images, generator)
        return self._solarize(images, generator)

    def crops(self, count: int, generator: torch.Generator) -> Tensor:
        """Random crops, some of them mirrored, as geometries: (count, 3, 3)."""
        return random_crop(count, generator, scale=self.crop_area, ratio=self.crop_ratio, flip=self.flip)

    def recolor(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Color jitter and conversion to grayscale, drawn for each image: (B, 3, H, W), the same shape."""
        if not any(self.jitter) and not self.grayscale:
            return images
        factors = dict(zip(("brightness", "contrast", "saturation", "hue"), self.jitter, strict=True))
        matrices = random_color(
            len(images), generator, **factors, grayscale=self.grayscale, probability=self.jitter_probability
        )
        return recolor(images, *matrices)

    def _blur(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if not self.blur:
            return images
        chosen = bernoulli(self.blur, len(images), generator).nonzero().flatten()
        sigma = uniform(*self.blur_sigma, len(images), generator)[chosen] * images.shape[-1]
        if not len(chosen):
            return images
        here = to_device(chosen, images.device)
        return images.index_copy(0, here, gaussian_blur(images[here], sigma))

    def _solarize(self, images: Tensor, generator: torch.Generator) -> Tensor:
        if not self.solarize:
            return images
        chosen = bernoulli(self.solarize, len(images), generator).bool()
        if not chosen.any():
            return images
        inverted = torch.where(images < 0.5, images, 1 - images)
        return torch.where(to_device(chosen, images.device)[:, None, None, None], inverted, images)


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image with its own Gaussian; beyond the border the image is mirrored.

    Args:
        images: (B, C, S, S).
        sigma: (B,) standard deviations in pixels, above 0, on the CPU.

    Returns:
        (B, C, S, S).
    """
    side = images.shape[-1]
    place = torch.arange(side, dtype=torch.float32)
    # Sources up to one image beyond the border, folded back in: position -1 - p and 2 S - 1 - p hold pixel p.
    offsets = torch.stack([place, -1 - place, 2 * side - 1 - place])  # (3, S)
    distance = place[:, None, None] - offsets  # (S, 3, S): output pixel, fold, source pixel
    kernel = (-distance.square() / (2 * sigma.square()[:, None, None, None])).exp().sum(2)  # (B, S, S)
    kernel = to_device(kernel / kernel.sum(2, keepdim=True), images.device).to(images.dtype)[:, None]
    with torch.autocast(images.device.type, enabled=False):  # pixels keep their eight bits
        return kernel @ images @ kernel.transpose(2, 3)


def two_views(
    batch: Batch,
    size: int,
    generator: torch.Generator,
    first: ViewAugmentation | None = None,
    second: ViewAugmentation | None = None,
) -> Tensor:
    """Two random views of every image, with different augmentations where `second` is given (BYOL).

    Returns:
        (B * 2, 3, size, size), the two views of an image in a row.
    """
    first = first or ViewAugmentation()
    if second is None:
        return first.views(batch, size, generator, copies=2)
    pair = [each.views(batch, size, generator) for each in (first, second)]
    return torch.stack(pair, 1).flatten(0, 1)


def crop_and_flip(crop_area: tuple[float, float], flip: bool) -> ViewAugmentation:
    """Random crops, half of them mirrored if `flip`, and no change of colors."""
    return ViewAugmentation(crop_area, flip=0.5 * flip, jitter=(0.0, 0.0, 0.0, 0.0), grayscale=0.0, blur=0.0)


def crop_and_jitter(
    crop_area: tuple[float, float], flip: bool, jitter: tuple[float, float, float, float], grayscale: float
) -> ViewAugmentation:
    """Random crops, half of them mirrored if `flip`, all with color jitter, some converted to gray; no blur."""
    return ViewAugmentation(
        crop_area, flip=0.5 * flip, jitter=jitter, jitter_probability=1.0, grayscale=grayscale, blur=0.0
    )


def byol_augmentations(base: ViewAugmentation) -> tuple[ViewAugmentation, ViewAugmentation]:
    """BYOL's asymmetric pair: the first view is always blurred, the second seldom, but solarized at times."""
    return replace(base, blur=1.0, solarize=0.0), replace(base, blur=0.1, solarize=0.2)
