"""Image transformations for the invariance analysis, from geometry and color alone.

No pretext task is imported, so the analysis is the same for every task.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from selftaught.augment.color import random_color, recolor
from selftaught.augment.warp import affine, identity, random_crop, uniform
from selftaught.contracts import Batch

Transform = Callable[[Batch, int, torch.Generator], Tensor]
"""(batch, size S, generator) -> transformed copies of the images, (B, 3, S, S) in [0, 1]."""


def _rotation(batch: Batch, size: int, generator: torch.Generator) -> Tensor:
    """Rotate by 90, 180 or 270 degrees."""
    degrees = 90.0 * torch.randint(1, 4, (len(batch),), generator=generator)
    return batch.warp(affine(degrees=degrees, count=len(batch)), size)


def _jigsaw(batch: Batch, size: int, generator: torch.Generator) -> Tensor:
    """Shuffle 3 x 3 tiles. Where `size` is not a multiple of 3, tiles are a pixel larger and the result is cropped."""
    side = -(-size // 3)
    tiles = batch.warp(identity(len(batch)), 3 * side).unfold(2, side, side).unfold(3, side, side)
    tiles = tiles.flatten(2, 3)  # (B, 3, 9, side, side)
    order = torch.rand(len(batch), 9, generator=generator).argsort(1).to(tiles.device)
    shuffled = tiles.gather(2, order[:, None, :, None, None].expand_as(tiles))
    # (B, 3, tile's row, tile's column, row, column)
    rows = shuffled.reshape(len(batch), 3, 3, 3, side, side).permute(0, 1, 2, 4, 3, 5)
    return rows.reshape(len(batch), 3, 3 * side, 3 * side)[..., :size, :size]


def _crop(batch: Batch, size: int, generator: torch.Generator) -> Tensor:
    """Random crop of 0.3 to 0.7 of the area, flipped horizontally with probability 0.5."""
    return batch.warp(random_crop(len(batch), generator, scale=(0.3, 0.7), flip=0.5), size)


def _color(batch: Batch, size: int, generator: torch.Generator) -> Tensor:
    """Jitter brightness, contrast and saturation by up to 0.4, hue by up to 0.1."""
    return recolor(batch.warp(identity(len(batch)), size), *random_color(len(batch), generator))


def _affine(batch: Batch, size: int, generator: torch.Generator) -> Tensor:
    """Slight translation, scaling, rotation and shear. The window stays inside the image, so no padding is visible."""
    return batch.warp(slight_affine(len(batch), generator), size)


def slight_affine(count: int, generator: torch.Generator) -> Tensor:
    """Matrices of random windows that lie inside the image: (count, 3, 3)."""
    width, height = (uniform(0.7, 0.85, count, generator) for _ in "wh")
    degrees, shear = (uniform(-10, 10, count, generator) for _ in "ds")
    matrix = affine(width=width, height=height, degrees=degrees, shear=shear, count=count)
    # Half extent of the window along x and y; the window can be translated by what remains of the image.
    reach = matrix[:, :2, :2].abs().sum(2).amax(1).clamp(min=1)
    matrix[:, :2, :2] /= reach[:, None, None]
    room = (1 - matrix[:, :2, :2].abs().sum(2)).clamp(0, 0.15)
    matrix[:, :2, 2] = room * (2 * torch.rand(count, 2, generator=generator) - 1)
    return matrix


TRANSFORMS: Mapping[str, Transform] = {
    "rotation": _rotation,
    "jigsaw": _jigsaw,
    "crop": _crop,
    "color": _color,
    "affine": _affine,
}
"""Name in the table -> transformation."""
