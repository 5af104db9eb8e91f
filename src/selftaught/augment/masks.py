"""Masks: which pixels of a view are hidden, as (B, 1, S, S) of bool on the CPU, True where nothing is shown.

The three kinds of Pathak et al. 2016, section 3.3: the centre, random blocks, and regions of any shape. Areas and
lengths are shares of the view's, so that one setting serves 32 and 128 pixels.

Letters: B images, S pixels along a view, K blocks.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.augment.warp import affine, uniform
from selftaught.errors import UserError


def center_side(size: int, share: float) -> int:
    """Pixels along the square in the middle that has this share of the area: at least 1, and it leaves a frame.

    The frame is as wide on all sides, so the side is even where that of the view is, and odd where that is.
    """
    frame = round((size - size * math.sqrt(share)) / 2)
    return size - 2 * min(max(frame, 1), (size - 1) // 2)


def center_masks(count: int, size: int, share: float = 0.25) -> Tensor:
    """The same square in the middle of every view: (count, 1, size, size).

    Args:
        count: how many.
        size: S, at least 3.
        share: of the area, in (0, 1): a quarter is half of the side.
    """
    require_maskable(size, share)
    side = center_side(size, share)
    masks = torch.zeros(count, 1, size, size, dtype=torch.bool)
    low = (size - side) // 2
    masks[..., low : low + side, low : low + side] = True
    return masks


def block_masks(count: int, size: int, generator: torch.Generator, *, share: float = 0.25, blocks: int = 4) -> Tensor:
    """Some rectangles anywhere, which may overlap: (count, 1, size, size).

    Args:
        count: how many.
        size: S, at least 3.
        generator: of the randomness.
        share: of the area, in (0, 1), that they cover at most (section 3.3: "up to 1/4 of the image").
        blocks: K. Their sides are uniform between a half of the largest and the largest, which is such that K of them
            would cover the share.
    """
    require_maskable(size, share)
    largest = size * math.sqrt(share / blocks)
    # Rounded down, or K of the largest could cover more than the share.
    sides = (uniform(0.5, 1.0, 2 * count * blocks, generator) * largest).floor().clamp(min=1)
    sides = sides.view(2, count, blocks, 1)
    low = (torch.rand(sides.shape, generator=generator) * (size - sides + 1)).floor()
    place = torch.arange(size)
    down, across = (place >= low) & (place < low + sides)  # (count, K, S) each
    return (down[..., :, None] & across[..., None, :]).any(1, keepdim=True)


def free_masks(count: int, size: int, generator: torch.Generator, *, share: float = 0.25, cells: int = 8) -> Tensor:
    """Regions of any shape, one or several: (count, 1, size, size).

    Where smooth noise is lowest, as in the release (`train_random.lua`); there the noise is below a fixed level and a
    mask is drawn again until 20 to 30 percent are hidden, here its level is such that the share is met to a pixel.
    (The paper cuts them out with the silhouettes of PASCAL VOC's objects, "deformed" at random, which we have not.)

    Args:
        count: how many.
        size: S, at least 3.
        generator: of the randomness.
        share: of the area, in (0, 1).
        cells: of noise along the view; fewer make larger regions. The release has 0.06 per pixel of views of 128, 7.7.
    """
    require_maskable(size, share)
    noise = torch.rand(count, 1, cells + 3, cells + 3, generator=generator)
    # A window of so many cells anywhere in the middle, so that the lattice does not say where the regions may lie.
    width = cells / (cells + 3)
    shift = uniform(-1, 1, 2 * count, generator).view(2, count) / (cells + 3)
    window = affine(x=shift[0], y=shift[1], width=width, height=width, count=count)[:, :2]
    grid = F.affine_grid(window, [count, 1, size, size], align_corners=False)
    smooth = F.grid_sample(noise, grid, mode="bicubic", padding_mode="reflection", align_corners=False).flatten(1)
    hidden = min(max(1, round(share * size**2)), size**2 - 1)
    lowest = smooth.topk(hidden, largest=False).indices
    masks = torch.zeros(count, size**2, dtype=torch.bool).scatter_(1, lowest, True)
    return masks.view(count, 1, size, size)


def rim(masks: Tensor, width: int) -> Tensor:
    """What is shown within `width` pixels of what is hidden, the eight neighbours being one away: like `masks`."""
    if width == 0:
        return torch.zeros_like(masks)
    return (F.max_pool2d(masks.float(), 2 * width + 1, stride=1, padding=width) > 0) & ~masks


def require_maskable(size: int, share: float) -> None:
    """Refuse to hide nothing, or everything, or a part of views in which no frame is left."""
    if not 0 < share < 1:
        raise UserError(f"--share, the hidden fraction of the area, must be above 0 and below 1, got {share:g}.")
    if size < 3:
        raise UserError(f"masked views need at least 3 pixels a side, got {size}: give a larger --size.")
