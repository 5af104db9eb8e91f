"""Masks: pixels of a view to hide, as (B, 1, S, S) of bool on the CPU, True where hidden.

The three shapes of Pathak et al. 2016, section 3.3: center, random blocks, and arbitrary regions. Areas and lengths are
fractions of the view's, so that one setting is valid for 32 and 128 pixels.

Letters: B images, S pixels along a view, K blocks.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from selftaught.augment.draws import rand
from selftaught.augment.warp import affine
from selftaught.errors import UserError


def center_side(size: int, share: float) -> int:
    """Side in pixels of the centered square with this fraction of the area: at least 1, with a frame around it.

    The frame has the same width on all sides, so the side is even for views of even size and odd for odd ones.
    """
    frame = round((size - size * math.sqrt(share)) / 2)
    return size - 2 * min(max(frame, 1), (size - 1) // 2)


def center_masks(count: int, size: int, share: float = 0.25) -> Tensor:
    """The same centered square for every view: (count, 1, size, size).

    Args:
        count: number of masks.
        size: S, at least 3.
        share: fraction of the area, in (0, 1): a quarter is half of the side.
    """
    require_maskable(size, share)
    side = center_side(size, share)
    masks = torch.zeros(count, 1, size, size, dtype=torch.bool)
    low = (size - side) // 2
    masks[..., low : low + side, low : low + side] = True
    return masks


def block_masks(count: int, size: int, generator: torch.Generator, *, share: float = 0.25, blocks: int = 4) -> Tensor:
    """Rectangles at random positions, which may overlap: (count, 1, size, size).

    Args:
        count: number of masks.
        size: S, at least 3.
        generator: random generator.
        share: maximum fraction of the area that they cover, in (0, 1) (section 3.3: "up to 1/4 of the image").
        blocks: K. Sides are uniform between half of the largest and the largest, with which K blocks without overlap
            would cover `share`.
    """
    require_maskable(size, share)
    largest = size * math.sqrt(share / blocks)
    # Rounded down: otherwise K of the largest blocks could cover more than `share`.
    shape = (2, count, blocks, 1)
    sides = ((rand(*shape, generator=generator, axis=1) * 0.5 + 0.5) * largest).floor().clamp(min=1)
    low = (rand(*shape, generator=generator, axis=1) * (size - sides + 1)).floor()
    place = torch.arange(size)
    down, across = (place >= low) & (place < low + sides)  # (count, K, S) each
    return (down[..., :, None] & across[..., None, :]).any(1, keepdim=True)


def free_masks(count: int, size: int, generator: torch.Generator, *, share: float = 0.25, cells: int = 8) -> Tensor:
    """One or several regions of arbitrary shape: (count, 1, size, size).

    Pixels where smooth noise is lowest, as in the released code (`train_random.lua`). There the threshold is fixed and
    masks are redrawn until 20 to 30 percent are hidden; here the threshold is chosen per mask to hide exactly `share`.
    (In the paper, regions are "deformed" silhouettes of PASCAL VOC objects, which are not available here.)

    Args:
        count: number of masks.
        size: S, at least 3.
        generator: random generator.
        share: fraction of the area, in (0, 1).
        cells: noise cells along the view; fewer make larger regions. Released code: 0.06 per pixel of 128, 7.7.
    """
    require_maskable(size, share)
    noise = rand(count, 1, cells + 3, cells + 3, generator=generator)
    # A window at a random position of a larger lattice, so that regions are not aligned with the lattice.
    width = cells / (cells + 3)
    shift = (rand(2, count, generator=generator, axis=1) * 2 - 1) / (cells + 3)
    window = affine(x=shift[0], y=shift[1], width=width, height=width, count=count)[:, :2]
    grid = F.affine_grid(window, [count, 1, size, size], align_corners=False)
    smooth = F.grid_sample(noise, grid, mode="bicubic", padding_mode="reflection", align_corners=False).flatten(1)
    hidden = min(max(1, round(share * size**2)), size**2 - 1)
    lowest = smooth.topk(hidden, largest=False).indices
    masks = torch.zeros(count, size**2, dtype=torch.bool).scatter_(1, lowest, True)
    return masks.view(count, 1, size, size)


def rim(masks: Tensor, width: int) -> Tensor:
    """Visible pixels within `width` pixels (8-connected) of hidden ones, shaped like `masks`."""
    if width == 0:
        return torch.zeros_like(masks)
    return (F.max_pool2d(masks.float(), 2 * width + 1, stride=1, padding=width) > 0) & ~masks


def require_maskable(size: int, share: float) -> None:
    """Reject masks that hide nothing or everything, and views too small for a frame."""
    if not 0 < share < 1:
        raise UserError(
            f"--share, the masked fraction of the area, must be above 0 and below 1, got {share:g}; try 0.25."
        )
    if size < 3:
        raise UserError(f"views to be masked must have at least 3 pixels per side, got {size}; increase --size.")
