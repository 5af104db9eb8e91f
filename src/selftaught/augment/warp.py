"""Geometry: any composition of crop, scale, flip, rotation, shear and shift is one matrix and one resampling.

A matrix (..., 3, 3) maps output to image coordinates, both from -1 to 1 (see `contracts`); the view of a view is
`first @ second`, where `second` is relative to the first view. Sampling is bilinear where the image is magnified, and
from a mip pyramid where it is downsampled, with the level chosen per view: otherwise the aliasing of small views would
be a shortcut that reveals the scale of a crop. Beyond the border images are mirrored.

Not supported: perspective and elastic warps.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.augment.draws import rand
from selftaught.errors import UserError

FINER = 0.2
"""Bias, in levels, toward the finer of the two levels nearest to a view, because bilinear sampling blurs as well."""


class Pyramid:
    """Images at decreasing resolutions, computed on first use.

    Args:
        images: (B, C, H, W) float on any device. B may be 1: then all views are of that image.
        octave: number of levels per halving of the resolution. With 1, views between two levels are interpolated. With
            more, views are sampled from the nearest level, at half the cost if levels exist, for images that are kept
            in memory. On windows of a photo the two differ from an antialiased resize by 0.030 and 0.034 (root mean
            square).
    """

    def __init__(self, images: Tensor, octave: int = 1) -> None:
        self._levels, self._octave = [images], octave

    def level(self, index: int) -> Tensor:
        """The images downsampled by 2 ** (index / octave); every level covers the same -1 to 1."""
        while (count := len(self._levels)) <= index:
            if count >= self._octave:
                whole = self._levels[count - self._octave]
                height, width = (math.ceil(side / 2) for side in whole.shape[-2:])
                self._levels.append(F.adaptive_avg_pool2d(whole, (height, width)))
            else:
                shrink = 2 ** (-count / self._octave)
                height, width = (math.ceil(side * shrink) for side in self._levels[0].shape[-2:])
                self._levels.append(F.interpolate(self._levels[0], (height, width), mode="bilinear", antialias=True))
        return self._levels[index]

    def sample(self, matrix: Tensor, size: int) -> Tensor:
        """Sample each image through its matrices: (B, K, 3, 3) on the CPU -> (B, K, C, size, size)."""
        images = self._levels[0]
        count, views = matrix.shape[:2]
        owner = torch.arange(count).repeat_interleave(views)
        flat = matrix.reshape(-1, 3, 3)
        depth = levels(flat, (images.shape[-2], images.shape[-1]), size)
        if self._octave > 1:
            depth = (self._octave * depth - FINER).round().clamp(min=0)
        if not depth.any():
            out = _bilinear(_take(images, owner, views), flat, size)
        else:
            out = images.new_empty(count * views, images.shape[1], size, size)
            floor = depth.floor()
            between = depth > floor
            for index, blended in sorted(set(zip(floor.int().tolist(), between.tolist(), strict=True))):
                chosen = ((floor == index) & (between == blended)).nonzero().flatten()
                sampled = _bilinear(_take(self.level(index), owner[chosen], 0), flat[chosen], size)
                if blended:
                    coarser = _bilinear(_take(self.level(index + 1), owner[chosen], 0), flat[chosen], size)
                    share = to_device((depth - floor)[chosen].to(out.dtype), out.device)
                    sampled = torch.lerp(sampled, coarser, share[:, None, None, None])
                out[to_device(chosen, out.device)] = sampled
        return out.reshape(count, views, *out.shape[1:])


def resample(images: Tensor, matrix: Tensor, size: int) -> Tensor:
    """Sample each image through its matrix, antialiased.

    Args:
        images: (B, C, H, W) float on any device, any range.
        matrix: (B, 3, 3), or (B, K, 3, 3) for K views of each image; float32 on the CPU.
        size: side of the output in pixels.

    Returns:
        (B, C, size, size), or (B, K, C, size, size).
    """
    if size < 1:
        raise UserError(f"views must have a size of at least 1 pixel, got {size}; increase --size.")
    if matrix.ndim == 3:
        return Pyramid(images).sample(matrix[:, None], size)[:, 0]
    return Pyramid(images).sample(matrix, size)


def levels(matrix: Tensor, shape: tuple[int, int], size: int) -> Tensor:
    """Pyramid level of each view: log2 of the step in image pixels per output pixel, at least 0.

    The longer of the horizontal and vertical step counts, so that there is no aliasing in either direction; the other
    direction may be blurred.

    Args:
        matrix: (n, 3, 3).
        shape: (H, W) of the image.
        size: side of the view.

    Returns:
        (n,) float, 0 where the image is magnified.
    """
    height, width = shape
    pixels = torch.tensor([[width], [height]]) / size  # a step of one output pixel is 2 / size; the image is 2 wide
    step = (matrix[:, :2, :2] * pixels).norm(dim=1).amax(1)
    return torch.log2(step.clamp(min=1 + 1e-4)) * (step > 1 + 1e-4)  # 1e-4: rounding must not cost a second level


def _take(images: Tensor, owner: Tensor, views: int) -> Tensor:
    """One image per view, without a copy where there is one image for all views or one view per image."""
    if len(images) == 1:
        return images.expand(len(owner), -1, -1, -1)
    return images if views == 1 else images[to_device(owner, images.device)]


def _bilinear(images: Tensor, matrix: Tensor, size: int) -> Tensor:
    """Sample (n, C, H, W) through (n, 3, 3) -> (n, C, size, size)."""
    grid = positions(to_device(matrix.to(images.dtype), images.device), size)
    # Inside the image both paddings give the same values; "border" is a fifth faster on a CPU.
    inside = matrix[:, :2].abs().sum(2).max() <= 1 + 1e-6
    padding = "border" if inside else "reflection"
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def positions(matrix: Tensor, size: int) -> Tensor:
    """Sampling positions of a view's pixels in the image: (n, 3, 3) -> (n, size, size, 2), x and y from -1 to 1.

    The result of `F.affine_grid`, 3 to 15 times as fast on a CPU: a sum of one term per column and one per row, with x
    and y in separate planes.
    """
    ticks = (torch.arange(size, device=matrix.device, dtype=matrix.dtype) * 2 + 1) / size - 1
    across, down, shift = matrix[:, :2].permute(2, 1, 0)[..., None, None]  # (2, n, 1, 1) each
    return (across * ticks + (down * ticks[:, None] + shift)).permute(1, 2, 3, 0)


# --- matrices -------------------------------------------------------------------------------------------------------


def identity(count: int) -> Tensor:
    """The whole image, (count, 3, 3)."""
    return torch.eye(3).repeat(count, 1, 1)


def affine(
    *,
    x: Tensor | float = 0.0,
    y: Tensor | float = 0.0,
    width: Tensor | float = 1.0,
    height: Tensor | float = 1.0,
    degrees: Tensor | float = 0.0,
    shear: Tensor | float = 0.0,
    flip: Tensor | float = 0.0,
    count: int,
) -> Tensor:
    """A window of the image, rotated, sheared and mirrored: (count, 3, 3). Every argument is a number or (count,).

    Args:
        x: center of the window, -1 to 1.
        y: the same, downward.
        width: width of the window as a fraction of the image's.
        height: height of the window as a fraction of the image's.
        degrees: counter-clockwise rotation of the *content* of the view, as torchvision's `rotate`.
        shear: slant of the window's columns in degrees.
        flip: 1 for a horizontal flip, else 0.
        count: number of matrices.
    """

    def each(value: Tensor | float) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float32).expand(count)

    angle, lean = torch.deg2rad(each(degrees)), torch.tan(torch.deg2rad(each(shear)))
    cos, sin = torch.cos(angle), torch.sin(angle)
    w, h, mirror = each(width), each(height), 1 - 2 * each(flip)
    matrix = torch.zeros(count, 3, 3)
    # window @ rotation @ shear @ mirror, expanded. Sampling clockwise (y is down) rotates content counter-clockwise.
    matrix[:, 0, 0] = w * cos * mirror
    matrix[:, 0, 1] = w * (cos * lean - sin)
    matrix[:, 1, 0] = h * sin * mirror
    matrix[:, 1, 1] = h * (sin * lean + cos)
    matrix[:, 0, 2], matrix[:, 1, 2], matrix[:, 2, 2] = each(x), each(y), 1
    return matrix


def uniform(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
    """(count,) uniform draws between `low` and `high`."""
    return rand(count, generator=generator) * (high - low) + low


def bernoulli(probability: float, count: int, generator: torch.Generator) -> Tensor:
    """(count,) of 0.0 and 1.0, 1 with `probability`."""
    return (rand(count, generator=generator) < probability).float()


def require_shares(flag: str, shares: tuple[float, float]) -> None:
    """Reject an invalid range of area fractions."""
    if not 0 < shares[0] <= shares[1] <= 1:
        raise UserError(
            f"{flag} must be two fractions of the area with 0 < low <= high <= 1, got {shares[0]} {shares[1]}; try "
            "0.5 1."
        )


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to a device, asynchronously on CUDA (on other devices that is not safe)."""
    return tensor.to(device, non_blocking=device.type == "cuda")


def random_window(
    count: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Width and height of random windows, as fractions of the side of a square image: two of (count,).

    Area fractions are uniform in `scale`, aspect ratios log-uniform in `ratio` (Szegedy et al. 2015, as torchvision's
    RandomResizedCrop). Windows larger than the image are clipped rather than drawn again.
    """
    area = uniform(*scale, count, generator)
    shape = torch.exp(uniform(math.log(ratio[0]), math.log(ratio[1]), count, generator))
    return (area * shape).sqrt().clamp(max=1), (area / shape).sqrt().clamp(max=1)


def random_crop(
    count: int,
    generator: torch.Generator,
    *,
    scale: tuple[float, float] = (1.0, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: float = 0.5,
) -> Tensor:
    """Random windows inside the image, some mirrored: (count, 3, 3).

    Args:
        count: number of windows.
        generator: random generator.
        scale: smallest and largest area as a fraction of the image's; (1, 1) is the whole image.
        ratio: smallest and largest ratio of width to height.
        flip: probability of a horizontal flip.
    """
    if scale == (1.0, 1.0):
        width, height = torch.ones(count), torch.ones(count)
    else:
        width, height = random_window(count, scale, ratio, generator)
    x = (1 - width) * uniform(-1, 1, count, generator)
    y = (1 - height) * uniform(-1, 1, count, generator)
    return affine(x=x, y=y, width=width, height=height, flip=bernoulli(flip, count, generator), count=count)
